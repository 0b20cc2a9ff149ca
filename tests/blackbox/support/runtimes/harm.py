"""A handler that does harm as the message asks for."""

import json
import os
import subprocess
import sys
import time


def handler(event, context):
    wish = json.loads(event.get("body", "{}")).get("do")
    if wish == "error":
        raise ValueError("x" * 300_000)
    if wish == "hang":
        print("hangs", flush=True)
        time.sleep(60)
    if wish == "flood":
        for number in range(5000):
            print("line", number)
    child = 0
    if wish == "leak":
        # It outlives its parent, and keeps the pipes open.
        child = subprocess.Popen(["sleep", "300"]).pid
    if wish == "hide":
        child = subprocess.Popen(["sleep", "300"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid
    if wish == "exit-with-child":
        subprocess.Popen(["sleep", "300"])
        sys.stdout.flush()
        os._exit(1)
    return {"statusCode": 200, "body": f"{os.getpid()} {child}"}
