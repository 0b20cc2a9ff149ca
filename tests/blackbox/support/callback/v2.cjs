// A handler with aws-sdk v2: posts to its caller, and then looks for one who is gone.
"use strict";

const AWS = require("aws-sdk");

exports.handler = async ({ requestContext: { domainName, stage, connectionId } }) => {
  const api = new AWS.ApiGatewayManagementApi({
    apiVersion: "2018-11-29",
    endpoint: domainName + "/" + stage,
    maxRetries: 0,
  });
  let status;
  const post = api.postToConnection({ ConnectionId: connectionId, Data: "hello" });
  post.on("complete", (response) => (status = response.httpResponse.statusCode));
  await post.promise();
  const gone = await api.getConnection({ ConnectionId: "L0SM9cOFvHcCIhw=" }).promise().catch((error) => error);
  return { statusCode: 200, body: `${status} ${gone.statusCode}` };
};
