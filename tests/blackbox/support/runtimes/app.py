"""A handler that does what the message asks for, and answers what it was told of the run."""

import json
import os
import time

MORE = {"most": 6_291_000, "more": 6_292_000}


def handler(event, context):
    wish = json.loads(event["body"]).get("do")
    if wish == "fail":
        raise ValueError("no luck")
    if wish == "exit":
        os._exit(3)
    time.sleep({"sleep": 0.5, "hang": 60}.get(wish, 0))
    told = {
        "process": os.getpid(),
        "request": context.aws_request_id,
        "deadline": int(time.time() * 1000) + context.get_remaining_time_in_millis(),
        "trace": os.environ["_X_AMZN_TRACE_ID"],
        "arn": context.invoked_function_arn,
        "event": len(json.dumps(event)),
    }
    body = ", ".join(f"{name}: {value}" for name, value in told.items())
    return {"statusCode": 200, "body": body, "headers": {"more": " " * MORE.get(wish, 0)}}
