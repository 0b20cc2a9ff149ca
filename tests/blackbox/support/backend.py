"""A back end over HTTP, as an application would be: it keeps what it was sent, and answers as a test says."""

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

OK = {"statusCode": 200}


class BackEnd:
    """`answer(request)` returns a status, headers and a body; by default the result of a Lambda function that is content."""

    def __init__(self, answer=None, address=("127.0.0.1", 0)):
        self.requests = []
        self.connections = []
        self.answer = answer or (lambda request: result(OK))
        back_end = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                length = int(self.headers.get("Content-Length", 0))
                request = Request(self.command, self.path, self.headers, self.rfile.read(length))
                back_end.requests.append(request)
                status, headers, body = back_end.answer(request)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_OPTIONS = handle_any

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 1024

            def process_request(self, connection, address):
                back_end.connections.append(connection)
                super().process_request(connection, address)

            def handle_error(self, *_):
                # The node hung up, as some tests want.
                pass

        self.server = Server(address, Handler)
        self.address = self.server.server_address
        self.url = "http://{}:{}/events?a=b".format(*self.address)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def events(self, kind=None):
        """The Lambda proxy events so far, in order, of one kind or all."""
        events = [request.event for request in list(self.requests) if request.method == "POST"]
        return [event for event in events if kind in (None, event["requestContext"]["eventType"])]

    def hold(self, *kinds, within=20):
        """Answers events of these kinds, or all, only once what is returned is set."""
        go_on = threading.Event()

        def answer(request):
            if request.kind in kinds or not kinds:
                go_on.wait(within)
            return result(OK)

        self.answer = answer
        return go_on

    def close(self):
        """Ends at once, kept connections too."""
        self.server.shutdown()
        self.server.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Request:
    def __init__(self, method, path, headers, body):
        self.method, self.path, self.headers, self.body = method, path, headers, body

    @property
    def event(self):
        return json.loads(self.body)

    @property
    def kind(self):
        return self.event["requestContext"]["eventType"]


def result(value, status=200):
    """An answer with a value in JSON."""
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()
