"""A handler with boto3: posts to its caller, and then looks for one who is gone."""

import json

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, SSLError


def handler(event, context):
    request = event["requestContext"]
    endpoint = json.loads(event["body"]).get("endpoint", f"https://{request['domainName']}/{request['stage']}")
    api = boto3.client(
        "apigatewaymanagementapi", endpoint_url=endpoint or None, config=Config(retries={"max_attempts": 0})
    )
    try:
        posted = api.post_to_connection(ConnectionId=request["connectionId"], Data=b"hello")
    except SSLError as error:
        return {"statusCode": 200, "body": f"{error}"}
    try:
        api.get_connection(ConnectionId="L0SM9cOFvHcCIhw=")
    except ClientError as error:
        statuses = [reply["ResponseMetadata"]["HTTPStatusCode"] for reply in (posted, error.response)]
        return {"statusCode": 200, "body": "{} {}".format(*statuses)}
