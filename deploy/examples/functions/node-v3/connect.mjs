// Notes a connection that comes in.
import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { DynamoDBDocumentClient, PutCommand } from '@aws-sdk/lib-dynamodb';

const table = DynamoDBDocumentClient.from(new DynamoDBClient({}));

export const handler = async (event) => {
  const { connectionId } = event.requestContext;
  await table.send(new PutCommand({ TableName: process.env.TABLE, Item: { connectionId } }));
  return { statusCode: 200 };
};
