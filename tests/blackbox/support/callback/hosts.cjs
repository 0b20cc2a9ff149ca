// Calls a host of Amazon's in all ways that Node.js has; prints what each was answered.
"use strict";

const https = require("node:https");
const AWS = require("aws-sdk");

const HOST = process.env.MAPPED;

const by = {
  v2: async () => (await new AWS.DynamoDB({ region: "us-east-1", maxRetries: 0 }).listTables().promise()).TableNames[0],
  fetch: async () => (await (await fetch(`https://${HOST}/`)).json()).TableNames[0],
  get: () =>
    new Promise((resolve, reject) => {
      https.get(`https://${HOST}/`, (answer) => answer.on("data", (data) => resolve(JSON.parse(data).TableNames[0]))).on("error", reject);
    }),
  imported: async () => {
    const { connect } = await import("node:tls");
    const socket = connect(443, HOST);
    socket.write(`GET / HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`);
    for await (const data of socket) return JSON.parse(String(data).split("\r\n\r\n")[1]).TableNames[0];
  },
  other: () => fetch("https://127.0.0.1:1/").then(() => "reached", () => "refused"),
};

async function main() {
  for (const [name, call] of Object.entries(by)) console.log(name, await call().catch((error) => error.message));
  process.exit();
}

main();
