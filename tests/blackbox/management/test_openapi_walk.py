"""The OpenAPI document against the server: every operation, with what the document lets through and what it does not."""

import json
import re
from urllib.parse import quote

import pytest
from jsonschema import Draft202012Validator

from gatecast import connection_id, request
from management import KEYS, MESSAGE_MAX, UNKNOWN_ID, signed

# What a caller could come up with; the document says which are names.
NAMES = [
    "moon", "x" * 127, "x" * 128, "x" * 129, "ü" * 64, "ü" * 65, "ü" * 128, "🚀" * 32, "🚀" * 33, "a/b?c#d&e=f%g", " ", "~", "%41", "+",
    "@x", "...", "", "a\0b", "a\nb", "a\x7fb", "a\x85b", "€" * 32, "{group}", "\"'\\", "\u2028", "\ufffd",
]
LIMITS = ["1", "1000", "0", "1001", "100", "101", "-1", "x", "", "1.5", "99999999999999999999", "+1", "%31"]
AFTERS = ["0", "18446744073709551615", "18446744073709551616", "-1", "x", "", "1.5", "+1"]
KEYS_OF_SENDS = ["k", "!" * 64, "!" * 65, "a b", "ü", ""]


@pytest.fixture(scope="module")
def node(start_shared):
    """With a Redis there are statuses that the other node cannot have, and the other way round."""
    return start_shared()


@pytest.fixture(scope="module")
def document(node):
    return json.loads(request(node.address, "GET", "/beta/@openapi")[1])


def operations(document):
    for path, item in document["paths"].items():
        for method in ("get", "put", "post", "delete"):
            if method in item:
                yield method.upper(), path, item[method], item.get("parameters", []) + item[method].get("parameters", [])


@pytest.fixture(scope="module")
def schema(document):
    """Validators of what the document names."""
    return lambda value: Draft202012Validator(value | {"components": document["components"]})


def resolved(document, value):
    while "$ref" in value:
        found = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        value = found
    return value


def parameters(document, given):
    return {one["name"]: one for one in (resolved(document, each) for each in given)}


def fits(document, schema, operation, response, body):
    """Asserts that an answer is one of those that the document has for the operation, its body included."""
    described = operation["responses"].get(str(response.status))
    assert described, (operation["operationId"], response.status, body)
    content = resolved(document, described).get("content")
    if content:
        assert response.headers["content-type"] == "application/json"
        schema(content["application/json"]["schema"]).validate(json.loads(body))
    else:
        assert not body, body
    if response.status >= 400:
        assert re.fullmatch(r"\w+Exception", response.headers["x-amzn-ErrorType"])


def filled(path, **values):
    names = {"connectionId": UNKNOWN_ID, "group": "moon", "user": "tom"} | values
    return "/beta" + re.sub(r"\{(\w+)\}", lambda open: quote(names[open[1]], safe=""), path)


def test_every_operation_answers_as_documented_with_and_without_a_body(node, document, schema):
    with node.connect() as client:
        id = connection_id(client)
        calls = sorted(operations(document), key=lambda call: call[0] == "DELETE" and "group" not in call[1])
        for connection in (UNKNOWN_ID, id):
            for method, path, operation, _ in calls:
                for body in (None, b"", b"hello"):
                    if body and "requestBody" not in operation:
                        continue
                    response, answer = request(node.address, method, filled(path, connectionId=connection), body)
                    fits(document, schema, operation, response, answer)
                    assert not operation.get("requestBody", {}).get("required")
                    is_gone = connection == UNKNOWN_ID and "{connectionId}" in path
                    expected = {410} if is_gone else {200, 204, 404 if "history" in path else 200}
                    if not (method == "DELETE" and connection == id):
                        assert response.status in expected, (method, path, answer)


def test_names_are_taken_as_documented(node, document, schema):
    """What the document lets through is never answered 400, and what is answered 400 it does not let through."""
    taken = set()
    for method, path, operation, given in operations(document):
        for name, parameter in parameters(document, given).items():
            if parameter["in"] != "path" or name == "connectionId":
                continue
            allowed = schema(parameter["schema"])
            general = schema({"$ref": "#/components/schemas/Name"})
            for value in NAMES:
                response, answer = request(node.address, method, filled(path, **{name: value}), b"")
                if value == "":
                    assert response.status in (400, 403, 405), (method, path, answer)
                    continue
                fits(document, schema, operation, response, answer)
                if allowed.is_valid(value):
                    taken.add(value)
                    assert response.status in (200, 204, 404, 410), (method, path, value, answer)
                elif not general.is_valid(value) or len(value.encode()) > 128:
                    # The node of a connection that nobody has does not get as far as the name.
                    assert response.status == 400 or "connectionId" in path, (method, path, value, answer)
    assert {"x" * 128, "ü" * 64, "🚀" * 32, "a/b?c#d&e=f%g", "%41"} < taken


def test_ids_are_taken_as_documented(node, document, schema):
    ids = [UNKNOWN_ID, "A" * 15 + "=", "-_" * 7 + "9=", "A" * 16, "A" * 14 + "=", "A" * 16 + "=", "x", "é" * 8, "A" * 14 + "+=", "a b", "=" * 16]
    for method, path, operation, given in operations(document):
        if "{connectionId}" not in path:
            continue
        allowed = schema(parameters(document, given)["connectionId"]["schema"])
        for id in ids:
            response, answer = request(node.address, method, filled(path, connectionId=id), b"")
            fits(document, schema, operation, response, answer)
            assert response.status == (410 if allowed.is_valid(id) else 400), (method, path, id, answer)


def test_pages_are_asked_for_as_documented(node, document, schema):
    values = {"limit": LIMITS, "after": AFTERS, "cursor": ["", "x", "=", "Zzo", "Yzo"]}
    for method, path, operation, given in operations(document):
        for name, parameter in parameters(document, given).items():
            if parameter["in"] != "query":
                continue
            allowed = schema(parameter["schema"])
            for text in values[name]:
                response, answer = request(node.address, method, f"{filled(path)}?{name}={text}")
                fits(document, schema, operation, response, answer)
                if name != "cursor":
                    value = 1 if text == "%31" else int(text) if re.fullmatch(r"-?\d+", text) else text
                    expected = {200, 404} if allowed.is_valid(value) else {400}
                    assert response.status in expected, (path, name, text, answer)
        if method == "GET" and "limit" in parameters(document, given):
            response, answer = request(node.address, method, f"{filled(path)}?other=1")
            assert response.status == 400, answer


def test_keys_of_sends_are_taken_as_documented(node, document, schema):
    for method, path, operation, given in operations(document):
        key = parameters(document, given).get("Idempotency-Key")
        assert bool(key) == (method == "POST" and "@connections" not in path)
        for text in KEYS_OF_SENDS if key else []:
            headers = {"Idempotency-Key": text.encode()}
            response, answer = request(node.address, method, filled(path), b"x", headers)
            fits(document, schema, operation, response, answer)
            assert response.status == (200 if schema(key["schema"]).is_valid(text) else 400), (path, text, answer)
            if response.status == 200:
                again = request(node.address, method, filled(path), b"x", headers)
                fits(document, schema, operation, *again)
                assert json.loads(again[1])["duplicate"] is True


def test_bodies_and_signatures_that_are_refused_are_documented(start, document, schema):
    node = start(**KEYS)
    for method, path, operation, _ in operations(document):
        response, answer = request(node.address, method, filled(path))
        fits(document, schema, operation, response, answer)
        assert (response.status, response.headers["x-amzn-ErrorType"]) == (403, "MissingAuthenticationTokenException")
        response, answer = signed(node.address, method, filled(path).replace("beta", "prod"))
        fits(document, schema, operation, response, answer)
        assert (response.status, response.headers["x-amzn-ErrorType"]) == (403, "ForbiddenException")
        if "requestBody" in operation:
            response, answer = signed(node.address, method, filled(path), b"x" * (MESSAGE_MAX + 1))
            fits(document, schema, operation, response, answer)
            assert response.status == 413


def test_names_that_are_no_utf_8_are_refused(node, document):
    for path in ("@groups/%FF", "@users/Jos%E9", "@groups/moon%C3/connections"):
        method = "GET" if path.endswith("connections") else "POST"
        response, body = request(node.address, method, f"/beta/{path}", b"")
        assert (response.status, response.headers["x-amzn-ErrorType"]) == (400, "BadRequestException"), path
        assert "UTF-8" in json.loads(body)["message"]


def test_with_redis_sends_and_histories_are_as_documented(start_on, redis, document, schema):
    [node] = start_on(redis, count=1, config='[[groups]]\npattern = "ticks"\nreplay = "off"\n')
    for method, path, operation, _ in operations(document):
        if "connectionId" in path:
            continue
        response, answer = request(node.address, method, filled(path), b"hello" if method == "POST" else None)
        fits(document, schema, operation, response, answer)
        assert response.status == 200, (path, answer)
    send = document["paths"]["/@groups/{group}"]["post"]
    response, answer = request(node.address, "POST", "/beta/@groups/ticks", b"hello")
    fits(document, schema, send, response, answer)
    assert json.loads(answer) == {"offset": None}
    response, answer = request(node.address, "POST", "/beta/@groups/ticks", b"hello", {"Idempotency-Key": "k"})
    fits(document, schema, send, response, answer)
    assert response.status == 400
