// Presigns with @smithy/signature-v4 as the JavaScript SDK does.
// Standard input: {"credentials": {...}, "seconds", "requests": [{"method", "host", "path", "body"}]}; output: a list of paths with queries.
"use strict";

const { createHash, createHmac } = require("node:crypto");
const { SignatureV4 } = require("@smithy/signature-v4");

class Sha256 {
  constructor(secret) { this.hash = secret ? createHmac("sha256", secret) : createHash("sha256"); }
  update(data) { this.hash.update(data); }
  async digest() { return new Uint8Array(this.hash.digest()); }
}

async function main() {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const { credentials, seconds, requests } = JSON.parse(Buffer.concat(chunks).toString());
  const signer = new SignatureV4({ credentials, region: "eu-west-1", service: "execute-api", sha256: Sha256 });
  const signed = [];
  for (const { method, host, path, body } of requests) {
    const [hostname, port] = host.split(":");
    const request = { method, protocol: "http:", hostname, port: Number(port), path, query: {}, headers: { host }, body };
    const { query } = await signer.presign(request, { expiresIn: seconds });
    const pairs = Object.entries(query).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
    signed.push(`${path}?${pairs.join("&")}`);
  }
  process.stdout.write(JSON.stringify(signed));
}

main();
