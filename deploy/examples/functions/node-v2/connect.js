// Notes a connection that comes in. Written for AWS SDK v2 and a callback, as many tutorials are.
const AWS = require('aws-sdk');

const table = new AWS.DynamoDB.DocumentClient({ region: process.env.AWS_REGION });

exports.handler = function (event, context, callback) {
  const item = { connectionId: event.requestContext.connectionId };
  table.put({ TableName: process.env.TABLE, Item: item }, function (error) {
    callback(null, {
      statusCode: error ? 500 : 200,
      body: error ? 'Failed to connect: ' + JSON.stringify(error) : 'Connected.',
    });
  });
};
