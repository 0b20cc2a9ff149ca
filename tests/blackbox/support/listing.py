"""Calls of lists and memberships, as a back end makes them."""

import json

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from gatecast import connection_id, request


def call(node, method, path, status=200, error_type=None):
    """Makes a call and checks how it was answered; returns the body, read if there is one."""
    response, body = request(node.address, method, f"/beta/{path}")
    assert response.status == status, (response.status, body)
    if error_type:
        assert response.headers["x-amzn-ErrorType"] == error_type
    return json.loads(body) if body else ""


def pages(node, path, limit=100):
    """All pages of a list, one after the other."""
    cursor = ""
    while cursor is not None:
        page = call(node, "GET", f"{path}?limit={limit}{cursor and '&cursor=' + cursor}")
        yield page
        cursor = page["cursor"]


def everything(node, path, limit=100):
    """All rows of a list, of which nothing is missing."""
    rows = []
    for page in pages(node, path, limit):
        assert page["incomplete"] == []
        rows += page["connections"] if "connections" in page else page["groups"]
    return rows


def fits(node, name, value):
    """Asserts that an answer is what the node's own document says, to the last field."""
    document = Resource(contents=call(node, "GET", "@openapi"), specification=DRAFT202012)
    schema = {"$ref": f"doc:#/components/schemas/{name}"}
    Draft202012Validator(schema, registry=Registry().with_resource("doc:", document)).validate(value)


def count(node):
    return call(node, "GET", "@counts")["connections"]


def identified(clients):
    return [connection_id(client) for client in clients]
