"""A worker that takes events from a stream and answers each message. Run as many as you like: each event goes to one of them.

    pip install boto3 redis
    gatecast --config deploy/examples/streams.toml
    AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any NAME=one python3 deploy/examples/streams/worker.py

Where the management API wants a key, these name it. An event is acknowledged once it is done; one whose worker has died is taken over
by another after IDLE_MS. So an event may be done twice, and none is left out as long as the stream holds it. SIGTERM ends a worker
once it has finished what it has begun.
"""

import json
import os
import signal

import boto3
import redis

STREAM = os.environ.get("STREAM", "gatecast:work:jobs")
GROUP = os.environ.get("GROUP", "workers")
NAME = os.environ["NAME"]
IDLE_MS = int(os.environ.get("IDLE_MS", "30000"))

server = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"), decode_responses=True)
api = boto3.client(
    "apigatewaymanagementapi",
    endpoint_url=os.environ.get("ENDPOINT", "http://127.0.0.1:8080/beta"),
    region_name=os.environ.get("AWS_REGION", "us-east-1"),
)


def work(event):
    request = event["requestContext"]
    if request["eventType"] != "MESSAGE":
        return
    try:
        api.post_to_connection(ConnectionId=request["connectionId"], Data=event["body"].upper().encode())
    except api.exceptions.GoneException:
        pass  # The client has left meanwhile.


def batches():
    """What a dead worker has left comes first, then what is new."""
    while is_running:
        _, left, _ = server.xautoclaim(STREAM, GROUP, NAME, min_idle_time=IDLE_MS, count=10)
        yield left or [entry for _, entries in server.xreadgroup(GROUP, NAME, {STREAM: ">"}, count=10, block=1_000) for entry in entries]


def stop(*_):
    global is_running
    is_running = False


is_running = True
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
try:
    server.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
except redis.ResponseError as error:
    if not str(error).startswith("BUSYGROUP"):
        raise
for batch in batches():
    for id, fields in batch:
        work(json.loads(fields["event"]))
        server.xack(STREAM, GROUP, id)
