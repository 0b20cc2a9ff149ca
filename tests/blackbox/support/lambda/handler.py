import sys
import time


def handler(event, context):
    body = event.get("body") or ""
    if "throw" in body:
        raise ValueError("boom")
    if "exit" in body:
        sys.exit(3)
    if "sleep" in body:
        time.sleep(20)
    return {"statusCode": 200, "body": "to " + body}
