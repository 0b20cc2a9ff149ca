"""Stands in for the API server of Kubernetes: pods of one namespace over HTTPS, as far as clients of pods need it.

Its answers follow the API's conventions (kinds, `Status` for refusals, `limit` and `continue`, merge patches, resource versions);
that a real `kubectl` can work with it is tested.
"""

import base64
import http.server
import json
import re
import ssl
import threading
import urllib.parse
from collections import namedtuple

NAMESPACE = "gatecast"
COST = "controller.kubernetes.io/pod-deletion-cost"
VERBS = ("get", "list", "patch")
REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired",
           415: "UnsupportedMediaType", 422: "Invalid", 429: "TooManyRequests", 500: "InternalError"}
Seen = namedtuple("Seen", "verb name query user status")


class Refused(Exception):
    """An answer that is no success: its status and message, and what it is about."""


def merged(target, patch):
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = merged(target.get(name), value)
    return target


def selects(selector, labels):
    """Requirements of equality, which is what kubectl and Gatecast are given here."""
    for requirement in filter(None, selector.split(",")):
        found = re.fullmatch(r"([A-Za-z0-9./_-]+)(!=|==?)([A-Za-z0-9._-]*)", requirement)
        if not found:
            raise Refused(400, f"unable to parse requirement: {requirement!r}")
        key, operator, value = found.groups()
        if (labels.get(key) == value) == (operator == "!="):
            return False
    return True


class ApiServer:
    """`users` says by token who may do what; `trouble` by verb how it fails: a status, or "hang"."""

    def __init__(self, certificate, key):
        self.pods, self.users, self.trouble, self.seen = {}, {}, {}, []
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.version = self.hanging = 0
        # Bytes that every list has more than it needs.
        self.padding = 0
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        # The handshake belongs to the connection's own thread, so that one that is refused keeps nobody waiting.
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.server.handle_error = lambda *_: None
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def stop(self):
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def put(self, pod):
        with self.lock:
            self.version += 1
            pod["metadata"]["resourceVersion"] = str(self.version)
            self.pods[pod["metadata"]["name"]] = pod

    def remove(self, name):
        with self.lock:
            del self.pods[name]

    def cost(self, name):
        """The annotation as it stands there; None without."""
        with self.lock:
            return self.pods[name]["metadata"].get("annotations", {}).get(COST)

    def of(self, verb):
        """What was asked with a verb, in order."""
        with self.lock:
            return [each for each in self.seen if each.verb == verb]

    def answer(self, handler, method):
        """The status and the object that a request is answered with."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        url = urllib.parse.urlsplit(handler.path)
        query = {name: values[-1] for name, values in urllib.parse.parse_qs(url.query).items()}
        token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.users:
            self._note("", "", query, None, 401)
            raise Refused(401, "Unauthorized")
        user, verbs = self.users[token]
        if found := self._discovery(url.path):
            return found
        path = re.fullmatch(rf"/api/v1/namespaces/{NAMESPACE}/pods(?:/([^/]+))?", url.path)
        if not path:
            raise Refused(404, "the server could not find the requested resource")
        name = path[1] and urllib.parse.unquote(path[1])
        verb = {("GET", False): "list", ("GET", True): "get", ("PATCH", True): "patch"}.get((method, bool(name)), method)
        try:
            result = self._carry_out(verb, name, query, (user, verbs), (handler.headers.get("Content-Type"), body))
        except Refused as refused:
            self._note(verb, name, query, user, refused.args[0])
            raise
        self._note(verb, name, query, user, 200)
        return result

    def _note(self, *what):
        with self.lock:
            self.seen.append(Seen(*what))

    @staticmethod
    def _discovery(path):
        resource = {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": list(VERBS), "shortNames": ["po"]}
        return {
            "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
            "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [resource]},
            # For which kubectl looks when it does not find a pod.
            f"/api/v1/namespaces/{NAMESPACE}": {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": NAMESPACE}},
        }.get(path)

    def _carry_out(self, verb, name, query, who, content):
        user, verbs = who
        if verb not in verbs:
            raise Refused(403, f'pods is forbidden: User "{user}" cannot {verb} resource "pods" in API group "" in the namespace '
                               f'"{NAMESPACE}"')
        if trouble := self.trouble.get(verb):
            if trouble == "hang":
                self.hanging += 1
                self.ended.wait()
                raise Refused(500, "ended")
            raise Refused(trouble, "no such luck")
        with self.lock:
            if verb == "list":
                return self._list(query)
            if name not in self.pods:
                raise Refused(404, f'pods "{name}" not found', {"name": name, "kind": "pods"})
            return self.pods[name] if verb == "get" else self._patch(name, *content)

    def _list(self, query):
        chosen = [pod for _, pod in sorted(self.pods.items()) if selects(query.get("labelSelector", ""), pod["metadata"]["labels"])]
        try:
            start = int(base64.b64decode(query["continue"], validate=True)) if "continue" in query else 0
        except ValueError:
            raise Refused(400, "continue key is not valid") from None
        end = start + (int(query.get("limit", 0)) or len(chosen))
        metadata = {"resourceVersion": str(self.version)}
        if end < len(chosen):
            metadata |= {"continue": base64.b64encode(str(end).encode()).decode(), "remainingItemCount": len(chosen) - end}
        if self.padding:
            metadata["selfLink"] = "x" * self.padding
        return {"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": chosen[start:end]}

    def _patch(self, name, kind, body):
        if kind != "application/merge-patch+json":
            raise Refused(415, f"the body of the request was in an unknown format: {kind}")
        try:
            pod = merged(self.pods[name], json.loads(body))
        except ValueError:
            raise Refused(400, "the body is no JSON") from None
        cost = pod["metadata"].get("annotations", {}).get(COST, "0")
        if not (re.fullmatch(r"0|-?[1-9]\d*", cost) and -2**31 <= int(cost) < 2**31):
            raise Refused(422, f"metadata.annotations[{COST}]: must be a 32bit integer")
        self.version += 1
        pod["metadata"]["resourceVersion"] = str(self.version)
        self.pods[name] = pod
        return pod

    def _handler(api):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def _do(self):
                try:
                    status, found = 200, api.answer(self, self.command)
                except Refused as refused:
                    status, message, *details = refused.args
                    found = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                             "reason": REASONS.get(status, "Unknown"), "code": status} | ({"details": details[0]} if details else {})
                body = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                if status == 429:
                    self.send_header("Retry-After", "1")
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PATCH = do_POST = do_PUT = do_DELETE = _do

        return Handler
