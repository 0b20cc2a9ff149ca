"""Callers of the management API: boto3, and requests whose bytes we choose, signed by botocore."""

import re
from contextlib import contextmanager

import boto3
import botocore.auth
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from gatecast import request

KEY_ID, SECRET = "AKIDGATECASTTEST", "a secret of the tests"
KEYS = {"GATECAST_ACCESS_KEY_ID": KEY_ID, "GATECAST_SECRET_ACCESS_KEY": SECRET}
# Well-formed, and of no connection that ever was.
UNKNOWN_ID = "L0SM9cOFvHcCIhw="
MESSAGE_MAX = 128 << 10


def sdk(endpoint, key_id=KEY_ID, secret=SECRET, **config):
    """An unmodified boto3 client; it does not retry, so that a test sees each answer."""
    return boto3.client(
        "apigatewaymanagementapi",
        endpoint_url=endpoint,
        region_name="eu-west-1",
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}, read_timeout=20, **config),
    )


def signature(address, method, path, body=b"", secret=SECRET, key_id=KEY_ID):
    """The headers that botocore signs a request with, whose path it takes as it is."""
    message = AWSRequest(method=method, url=f"http://{address[0]}:{address[1]}{path}", data=body)
    SigV4Auth(Credentials(key_id, secret), "execute-api", "eu-west-1").add_auth(message)
    return dict(message.headers.items())


def signed(address, method, path, body=b"", secret=SECRET):
    """Sends a signed request; returns the response and its body."""
    return request(address, method, path, body, signature(address, method, path, body, secret))


@contextmanager
def clock_off_by(monkeypatch, offset):
    """Sets the clock that botocore signs with."""
    now = botocore.auth.get_current_datetime
    with monkeypatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda *args, **kwargs: now(*args, **kwargs) + offset)
        yield


def is_uuid(text):
    return re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text) is not None
