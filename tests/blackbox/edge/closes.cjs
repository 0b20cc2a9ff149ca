// Opens WebSockets one after the other, with `ws` and with Node's own client, which speaks as browsers do, and sends 5 MB
// through each. Arguments: the URL and how many of each; output: a list of how they were closed.
"use strict";

const clients = { ws: require("ws"), node: globalThis.WebSocket };
const [url, runs] = process.argv.slice(2);
const big = "x".repeat(5_000_000);

function closed(client) {
  return new Promise((resolve) => {
    const errors = [];
    const socket = new clients[client](url);
    socket.addEventListener("open", () => socket.send(big));
    socket.addEventListener("error", (event) => errors.push(String(event.message ?? event.error)));
    socket.addEventListener("close", ({ code, reason, wasClean }) => resolve({ client, code, reason, wasClean, errors }));
  });
}

async function main() {
  const closes = [];
  for (const client of Object.keys(clients)) {
    for (let run = 0; run < Number(runs); run++) closes.push(await closed(client));
  }
  process.stdout.write(JSON.stringify(closes));
}

main();
