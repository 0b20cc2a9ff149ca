"""Real browsers. A page that a test writes runs in one, and tells its own server what it saw: no driver is needed."""

import json
import os
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gatecast import clean_environment
from wire import answer

# A name of a stranger, which leads to this host: what a browser is told of names is told to it alone.
STRANGER = "evil.example"
START_SECONDS = 40
PAGE = """<!doctype html><meta charset="utf-8"><script type="module">
const given = %s;
const tell = (what) => fetch("/page/result", { method: "POST", body: JSON.stringify(what) });
const run = async () => { %s };
run().then(tell, (error) => tell({ failed: String(error?.stack ?? error) }));
</script>"""


class Chromium:
    """As Debian has it. Root may not have its sandbox."""

    program = "chromium"

    def line(self, folder, url):
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
                   "--disable-background-networking", "--disable-component-update", "--no-proxy-server"]
        return [self.program, *options, f"--user-data-dir={folder}", f"--host-resolver-rules=MAP {STRANGER} 127.0.0.1", url]


class Firefox:
    """As Debian has it."""

    program = "firefox-esr"

    def line(self, folder, url):
        folder.mkdir()
        settings = {"network.dns.localDomains": STRANGER, "network.proxy.type": 0, "browser.shell.checkDefaultBrowser": False,
                    "datareporting.policy.dataSubmissionEnabled": False, "toolkit.telemetry.reportingpolicy.firstRun": False,
                    "browser.aboutwelcome.enabled": False, "dom.security.https_first": False}
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in settings.items()]
        (folder / "user.js").write_text("\n".join(lines))
        return [self.program, "--headless", "--no-remote", "--profile", str(folder), url]


class Server(ThreadingHTTPServer):
    """Where a page comes from. Whatever is not below `/page` leads to `behind`, as after a name was bound anew."""

    daemon_threads = True

    def __init__(self, page, calls, behind):
        super().__init__(("127.0.0.1", 0), Handler)
        self.page, self.calls, self.behind = page, calls, behind
        self.result, self.has_result = None, threading.Event()

    def handle_error(self, *_):
        """A browser that is ended ends its connections."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/page":
            self.answer(200, self.server.page.encode(), "text/html")
        elif self.path == "/page/result":
            self.server.result = json.loads(body)
            self.answer(200, b"")
            self.server.has_result.set()
        elif self.path.startswith("/page/call/"):
            self.server.calls[self.path.rpartition("/")[2]]()
            self.answer(200, b"")
        elif self.server.behind and self.path != "/favicon.ico":
            fields = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
            status, headers, told = answer(self.server.behind, self.raw_requestline + fields.encode() + b"\r\n" + body)
            self.answer(status, told, headers["content-type"])
        else:
            self.answer(404, b"")

    do_POST = do_GET

    def answer(self, status, body, kind="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def run(kind, folder, script, given=None, host="localhost", calls=None, behind=None):
    """What a page says in the end, which came from a host by this name; `script` is the body of a function. A page may `GET
    /page/call/NAME`, and waits for that one of `calls` then."""
    browser = kind()
    assert shutil.which(browser.program), f"{browser.program} is missing; tests/run installs it"
    with Server(PAGE % (json.dumps(given), script), calls or {}, behind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://{host}:{server.server_port}/page"
        environment = clean_environment({"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder), "MOZ_CRASHREPORTER_DISABLE": "1"})
        with open(folder / "browser.log", "wb") as log:
            process = subprocess.Popen(browser.line(folder / "profile", url), stdout=log, stderr=log, env=environment,
                                       start_new_session=True)
        try:
            assert server.has_result.wait(START_SECONDS), (folder / "browser.log").read_text()[-2_000:]
        finally:
            os.killpg(process.pid, 9)
            process.wait()
            server.shutdown()
    assert not (isinstance(server.result, dict) and "failed" in server.result), server.result
    return server.result
