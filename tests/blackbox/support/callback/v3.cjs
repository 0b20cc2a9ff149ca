// What a handler does with @aws-sdk v3: posts to its caller, and then looks for one who is gone.
"use strict";

const { ApiGatewayManagementApiClient, PostToConnectionCommand, GetConnectionCommand } =
  require("@aws-sdk/client-apigatewaymanagementapi");

const { DOMAIN_NAME, STAGE, CONNECTION_ID, SLASH, NO_ENDPOINT } = process.env;
const endpoint = `https://${DOMAIN_NAME}/${STAGE}${SLASH ?? ""}`;
const client = new ApiGatewayManagementApiClient({ maxAttempts: 1, ...(!NO_ENDPOINT && { endpoint }) });

async function main() {
  const posted = await client.send(new PostToConnectionCommand({ ConnectionId: CONNECTION_ID, Data: "hello" }));
  const gone = await client
    .send(new GetConnectionCommand({ ConnectionId: "L0SM9cOFvHcCIhw=" }))
    .catch((error) => error);
  console.log(posted.$metadata.httpStatusCode, gone.$metadata.httpStatusCode);
}

main().catch((error) => console.log(`${error.name} ${error.code}: ${error.message}`));
