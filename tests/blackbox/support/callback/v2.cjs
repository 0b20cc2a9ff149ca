// What a handler does with aws-sdk v2: posts to its caller, and then looks for one who is gone.
"use strict";

const AWS = require("aws-sdk");

const { DOMAIN_NAME, STAGE, CONNECTION_ID } = process.env;
const api = new AWS.ApiGatewayManagementApi({
  apiVersion: "2018-11-29",
  endpoint: DOMAIN_NAME + "/" + STAGE,
  maxRetries: 0,
});

async function main() {
  let status;
  const post = api.postToConnection({ ConnectionId: CONNECTION_ID, Data: "hello" });
  post.on("complete", (response) => (status = response.httpResponse.statusCode));
  await post.promise();
  const gone = await api.getConnection({ ConnectionId: "L0SM9cOFvHcCIhw=" }).promise().catch((error) => error);
  console.log(status, gone.statusCode);
}

main().catch((error) => console.log(`${error.code}: ${error.message}`));
