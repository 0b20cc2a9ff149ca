"""What a handler does with boto3: posts to its caller, and then looks for one who is gone."""

import os

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

endpoint = None if os.environ.get("NO_ENDPOINT") else f"https://{os.environ['DOMAIN_NAME']}/{os.environ['STAGE']}"
api = boto3.client("apigatewaymanagementapi", endpoint_url=endpoint, config=Config(retries={"max_attempts": 0}))


def main():
    posted = api.post_to_connection(ConnectionId=os.environ["CONNECTION_ID"], Data=b"hello")
    try:
        api.get_connection(ConnectionId="L0SM9cOFvHcCIhw=")
    except ClientError as error:
        print(posted["ResponseMetadata"]["HTTPStatusCode"], error.response["ResponseMetadata"]["HTTPStatusCode"])


try:
    main()
except Exception as error:
    print(f"{type(error).__name__}: {error}")
