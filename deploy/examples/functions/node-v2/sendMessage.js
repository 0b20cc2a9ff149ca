// Sends a message to every connection of the table, and forgets those that are gone.
const AWS = require('aws-sdk');

const table = new AWS.DynamoDB.DocumentClient({ region: process.env.AWS_REGION });

exports.handler = async (event) => {
  const { domainName, stage } = event.requestContext;
  const api = new AWS.ApiGatewayManagementApi({ endpoint: domainName + '/' + stage });
  const { data } = JSON.parse(event.body);
  const { Items } = await table
    .scan({ TableName: process.env.TABLE, ProjectionExpression: 'connectionId' })
    .promise();
  await Promise.all(
    Items.map(async ({ connectionId }) => {
      try {
        await api.postToConnection({ ConnectionId: connectionId, Data: data }).promise();
      } catch (error) {
        if (error.statusCode !== 410) throw error;
        await table.delete({ TableName: process.env.TABLE, Key: { connectionId } }).promise();
      }
    }),
  );
  return { statusCode: 200, body: 'Data sent.' };
};
