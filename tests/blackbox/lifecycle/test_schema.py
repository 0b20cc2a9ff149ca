"""The JSON schema of the configuration file: it is one, it takes what we show, and what it refuses `gatecast check` refuses too."""

import json
import re
import tomllib

import pytest
from jsonschema import Draft202012Validator

from gatecast import ROOT, command

PUBLISHED = ROOT / "docs/reference/gatecast.schema.json"
FILES = sorted([*ROOT.glob("deploy/examples/*.toml"), *ROOT.glob("k8s/**/*.toml")])
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md"), *ROOT.glob("k8s/**/*.md")])
SNIPPETS = [
    pytest.param(text, id=f"{page.relative_to(ROOT)} {number}")
    for page in PAGES
    for number, text in enumerate(re.findall(r"^```toml\n(.*?)^```$", page.read_text(), re.M | re.S))
]
# Programs are tested without spans: what is shown of them is not for `check`.
NOT_BUILT_IN = "[tracing]"
GOOD = {
    "nothing": "",
    "numbers in hexadecimal and groups": "limits.frame_bytes = 0x1000\nlimits.max_connections = 1_000",
    "what is off": 'limits.ping_interval = "off"\nlimits.connections_per_address = "off"',
    "durations": 'limits.idle_timeout = "1h 30m"\nlimits.max_lifetime = "1.5 days"\ndrain.notice = "0s"\ndrain.grace = "6s 500ms"',
    "keys": '[[management.keys]]\nid = "A"\nsecret = "long enough"\n[[management.keys]]\nid = "B-=+."\nsecret = "with blanks in it"',
    "all that is special of $connect": '[routes."$connect"]\nintegration = "mock"\nstatus = 403',
    "every integration": "\n".join(
        f'[routes.{name}]\nintegration = "{name}"\n{fields}'
        for name, fields in {
            "mock": 'reply = "done"', "broadcast": 'data = "x"\nidempotency_key = "$request.body.id"', "reply": 'reply = "x"', "close": "",
            "join": 'group = "a"', "leave": 'group = "a"', "send_group": 'group = "a"\ndata = "x"\nreply = "y"',
        }.items()
    ),
    "rules": '[[groups]]\npattern = "a*"\nreplay = "off"\n[[groups]]\npattern = "b"',
    "functions": '[functions.a]\nruntime = "node"\nhandler = "index.handler"\ncode = "."\nenvironment = { A = "b", C = 3 }\n'
    '[functions.b]\nruntime = "command"\ncode = "."\nhosts = { "db.example.com" = "127.0.0.1:8000" }',
    "a header": 'trusted_proxies = ["10.0.0.0/8"]\nauth.user_header = "X-User"',
}
BAD = {
    "an unknown key": "lisetn = 1",
    "an unknown key of a table": 'limits.idel_timeout = "1m"',
    "an unknown table": "[limit]\nidle_timeout = 1",
    "an unknown key of a route": '[routes.a]\nintegration = "mock"\nreplay = "on"',
    "an unknown key of a function": '[functions.a]\nruntime = "command"\ncode = "."\nmemory = 128',
    "a function without a handler": '[functions.a]\nruntime = "node"\ncode = "."',
    "a function without a folder": '[functions.a]\nruntime = "command"',
    "a variable with a blank": '[functions.a]\nruntime = "command"\ncode = "."\nenvironment = { "a b" = "c" }',
    "a function with a blank": '[functions."a b"]\nruntime = "command"\ncode = "."',
    "an unknown key of a rule": '[[groups]]\npattern = "a"\nretain = "on"',
    "an unknown key of a key": '[[management.keys]]\nid = "A"\nsecret = "long enough"\nname = "x"',
    "a list for a number": "limits.frame_bytes = [1]",
    "a text for a switch": 'limits.allow_binary = "maybe"',
    "a number for a duration": "limits.idle_timeout = 600",
    "no duration": 'drain.window = "10 parsecs"',
    "a text for a table": 'limits = "many"',
    "a text for a list": 'auth.allowed_origins = "*"',
    "a table for a list of tables": '[groups]\npattern = "a"',
    "too little": "limits.max_connections = 0",
    "too much": "limits.message_bytes = 999_999_999_999",
    "a part of a number": "limits.max_connections = 1.5",
    "more than all": "tracing.ratio = 1.5",
    "neither off nor a number": 'limits.handshake_rate_per_address = "none"',
    "too much of what may be off": "limits.handshake_rate_per_address = 2_000_000",
    "none of the words": 'redis.on_outage = "wait"',
    "a stage with a blank": 'stage = "a b"',
    "a prefix with braces": '[redis]\nurl = "redis://a"\nprefix = "{a}"',
    "a name of nothing": 'node_name = " "',
    "no Redis": 'redis.url = "http://a"',
    "no header": 'trusted_proxies = ["10.0.0.1"]\nauth.user_header = "X User"',
    "a short secret": '[[management.keys]]\nid = "A"\nsecret = "short"',
    "an id with a slash": '[[management.keys]]\nid = "A/B"\nsecret = "long enough"',
    "a key without a secret": '[[management.keys]]\nid = "A"',
    "a rule without a pattern": '[[groups]]\nreplay = "off"',
    "a route without an integration": '[routes.a]\nreply = "x"',
    "an unknown integration": '[routes.a]\nintegration = "shout"',
    "a route without its data": '[routes.a]\nintegration = "broadcast"',
    "a route with what it does not take": '[routes.a]\nintegration = "join"\ngroup = "a"\ndata = "x"',
    "a route without its answer": '[routes.a]\nintegration = "reply"',
    "a status on another route": '[routes.a]\nintegration = "mock"\nstatus = 200',
    "a status that is none": '[routes."$connect"]\nintegration = "mock"\nstatus = 700',
    "a join on $connect": '[routes."$connect"]\nintegration = "join"\ngroup = "a"',
    "an answer on $disconnect": '[routes."$disconnect"]\nintegration = "mock"\nreply = "x"',
    "a route of an unknown $": '[routes."$nope"]\nintegration = "mock"',
}


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(PUBLISHED.read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def check(directory, text):
    path = directory / "gatecast.toml"
    path.write_text(text)
    return command("check", "--config", path)


def test_the_program_prints_what_is_published():
    printed = command("schema")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert printed.stdout == PUBLISHED.read_text()
    assert "schema" in command("--help").stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_of_ours_are_valid(validator, path):
    validator.validate(tomllib.loads(path.read_text()))


@pytest.mark.parametrize("text", SNIPPETS)
def test_what_the_pages_show_is_valid(validator, tmp_path, text):
    validator.validate(tomllib.loads(text))
    (tmp_path / "functions").mkdir()
    assert NOT_BUILT_IN in text or check(tmp_path, text).returncode == 0


@pytest.mark.parametrize("name", GOOD)
def test_what_is_good_is_taken_by_both(validator, tmp_path, name):
    checked = check(tmp_path, GOOD[name])
    assert checked.returncode == 0, checked.stderr
    validator.validate(tomllib.loads(GOOD[name]))


@pytest.mark.parametrize("name", BAD)
def test_what_is_bad_is_refused_by_both(validator, tmp_path, name):
    assert not validator.is_valid(tomllib.loads(BAD[name]))
    assert check(tmp_path, BAD[name]).returncode == 64

