// Runs calls of the unmodified @aws-sdk/client-apigatewaymanagementapi, one after the other.
// Standard input: {"client": {...}, "calls": [{"operation", "id", "bytes" (base64)}]}; output: a list of results.
"use strict";

const api = require("@aws-sdk/client-apigatewaymanagementapi");

async function call(client, { operation, id, bytes }) {
  const input = { ConnectionId: id };
  if (operation === "PostToConnection") input.Data = Buffer.from(bytes, "base64");
  try {
    const { $metadata, ...output } = await client.send(new api[`${operation}Command`](input));
    return { status: $metadata.httpStatusCode, requestId: $metadata.requestId, output };
  } catch (error) {
    return {
      error: error.name,
      isModelled: error instanceof (api[error.name] ?? Promise),
      message: error.message,
      status: error.$metadata?.httpStatusCode,
      attempts: error.$metadata?.attempts,
    };
  }
}

async function main() {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const { client: options, calls } = JSON.parse(Buffer.concat(chunks).toString());
  const client = new api.ApiGatewayManagementApiClient({ region: "eu-west-1", maxAttempts: 1, ...options });
  const results = [];
  for (const one of calls) results.push(await call(client, one));
  process.stdout.write(JSON.stringify(results));
}

main();
