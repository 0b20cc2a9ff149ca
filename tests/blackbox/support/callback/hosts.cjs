// A handler that calls a host of Amazon's in all ways that Node.js has; answers what each was told.
"use strict";

const https = require("node:https");
const AWS = require("aws-sdk");

const HOST = process.env.MAPPED;

const by = {
  v2: async () => (await new AWS.DynamoDB({ maxRetries: 0 }).listTables().promise()).TableNames[0],
  fetch: async () => (await (await fetch(`https://${HOST}/`, { method: "POST" })).json()).TableNames[0],
  request: () =>
    new Promise((resolve, reject) => {
      const answered = (answer) => answer.on("data", (data) => resolve(JSON.parse(data).TableNames[0]));
      https.request(`https://${HOST}/`, { method: "POST" }, answered).on("error", reject).end();
    }),
  imported: async () => {
    const { connect } = await import("node:tls");
    const socket = connect(443, HOST);
    socket.write(`POST / HTTP/1.1\r\nHost: ${HOST}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
    let text = "";
    for await (const data of socket) text += data;
    return JSON.parse(text.split("\r\n\r\n")[1]).TableNames[0];
  },
  other: () => fetch("https://127.0.0.1:1/").then(() => "reached", () => "refused"),
};

exports.handler = async () => {
  const told = {};
  for (const [name, call] of Object.entries(by)) told[name] = await call().catch((error) => error.message);
  return { statusCode: 200, body: JSON.stringify(told) };
};
