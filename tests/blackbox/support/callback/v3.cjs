// A handler with @aws-sdk v3: posts to its caller, and then looks for one who is gone.
"use strict";

const { ApiGatewayManagementApiClient, PostToConnectionCommand, GetConnectionCommand } =
  require("@aws-sdk/client-apigatewaymanagementapi");

exports.handler = async ({ requestContext: { domainName, stage, connectionId }, body }) => {
  const { slash = "", endpoint = `https://${domainName}/${stage}${slash}` } = JSON.parse(body);
  const client = new ApiGatewayManagementApiClient({ maxAttempts: 1, ...(endpoint && { endpoint }) });
  try {
    const posted = await client.send(new PostToConnectionCommand({ ConnectionId: connectionId, Data: "hello" }));
    const gone = await client
      .send(new GetConnectionCommand({ ConnectionId: "L0SM9cOFvHcCIhw=" }))
      .catch((error) => error);
    return { statusCode: 200, body: `${posted.$metadata.httpStatusCode} ${gone.$metadata.httpStatusCode}` };
  } catch (error) {
    return { statusCode: 200, body: `${error.name} ${error.code}: ${error.message}` };
  }
};
