"""Lambda functions that run elsewhere: Amazon's own emulator, serverless-offline, and an endpoint that verifies as botocore signs."""

import contextlib
import datetime
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote
from unittest.mock import patch

import botocore.auth
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from gatecast import ROOT, clean_environment, eventually, request
from ports import free_row
from terminal import NODE_MODULES

CODE = Path(__file__).with_name("lambda")
EMULATORS = ROOT / "tests/.tools/emulator/samcli/local/rapid"
EMULATOR = EMULATORS / f"aws-lambda-rie-{'arm64' if platform.machine() == 'aarch64' else 'x86_64'}"


class Program:
    """A program with children, which ends with them."""

    def __init__(self, directory, line, environment=None, folder=CODE):
        self.log_path = directory / "program.log"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                list(map(str, line)), cwd=folder, env=clean_environment(environment),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )

    def wait_for(self, port, within):
        try:
            eventually(lambda: answers(("127.0.0.1", port)), within)
        except BaseException:
            self.close()
            raise

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def answers(address):
    with contextlib.suppress(OSError):
        return request(address, "GET", "/")[0].status
    return None


class Emulator(Program):
    """`aws-lambda-rie`, as it is in Amazon's images, with its runtime client for Python."""

    function, max_in_flight = "function", 1

    def __init__(self, directory):
        port = free_row(2)
        addresses = [f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"]
        line = [EMULATOR, "--runtime-interface-emulator-address", addresses[0], "--runtime-api-address", addresses[1]]
        line += [sys.executable, "-m", "awslambdaric", "handler.handler"]
        super().__init__(directory, line, {"AWS_LAMBDA_FUNCTION_TIMEOUT": "25"})
        self.url = f"http://{addresses[0]}"
        self.wait_for(port, within=20)


class Offline(Program):
    """`serverless offline`."""

    function, max_in_flight = "chat-dev-handler", 16

    def __init__(self, directory):
        port = free_row(2)
        folder = directory / "app"
        shutil.copytree(CODE, folder)
        (folder / "node_modules").symlink_to(NODE_MODULES)
        line = ["node", NODE_MODULES / "serverless/bin/serverless.js", "offline"]
        line += ["--lambdaPort", port, "--httpPort", port + 1, "--host", "127.0.0.1"]
        environment = {
            "HOME": str(directory), "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any",
            "SLS_TELEMETRY_DISABLED": "1", "SLS_NOTIFICATIONS_MODE": "off",
        }
        super().__init__(directory, line, environment, folder)
        self.url = f"http://127.0.0.1:{port}"
        self.wait_for(port, within=60)


class Aws:
    """What an instance meets: its metadata, and a Lambda service that takes the credentials from there, signed as botocore does."""

    def __init__(self):
        self.paths, self.calls, self.answer = [], [], (200, {}, {"statusCode": 200, "body": "signed"})
        self.refused, self.life = [], 3_600
        aws = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                aws.paths.append(f"{self.command} {self.path}")
                status, headers, text = aws.respond(self, body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_PUT = do_POST = handle_any

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = "http://127.0.0.1:{}".format(self.server.server_address[1])
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def respond(self, asked, body):
        roles = "/latest/meta-data/iam/security-credentials/"
        if asked.command == "PUT" and asked.path == "/latest/api/token":
            return 200, {}, b"TOKEN"
        if asked.path.startswith(roles) and asked.headers["x-aws-ec2-metadata-token"] != "TOKEN":
            return 401, {}, b""
        if asked.path == roles:
            return 200, {}, b"node"
        if asked.path == roles + "node":
            return 200, {}, self.document()
        if not self.is_signed(asked, body):
            self.refused.append(dict(asked.headers))
            return 403, {"x-amzn-ErrorType": "InvalidSignatureException"}, b"{}"
        self.calls.append(json.loads(body))
        status, headers, value = self.answer
        return status, headers, json.dumps(value).encode()

    def document(self):
        end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=self.life)
        return json.dumps({
            "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "s/ecret+of/the+node",
            "Token": "t/oken+of/the+node==", "Expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }).encode()

    def is_signed(self, asked, body):
        given = asked.headers.get("Authorization", "")
        names = given.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        region = given.partition("Credential=")[2].split("/")[2:3]
        at = datetime.datetime.strptime(asked.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
        added = ("x-amz-date", "x-amz-security-token")
        headers = {name: asked.headers[name] for name in names if name not in added}
        ours = AWSRequest("POST", f"http://{asked.headers['Host']}{asked.path}", data=body, headers=headers)
        keys = Credentials("ASIAEXAMPLE", "s/ecret+of/the+node", "t/oken+of/the+node==")
        with patch.object(botocore.auth, "get_current_datetime", lambda **_: at):
            SigV4Auth(keys, "lambda", region[0]).add_auth(ours)
        return ours.headers["Authorization"] == given and "x-amz-security-token" in names

    def functions(self):
        return {unquote(path.split("/")[3]) for path in self.paths if path.startswith("POST /2015-03-31/functions/")}

    def close(self):
        self.server.shutdown()
        self.server.server_close()
