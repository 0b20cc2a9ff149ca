// What a function of an application does as its client asks it to, by the query or by the message; it notes its events.
const { appendFileSync } = require("node:fs");

const note = (event) => appendFileSync(process.env.EVENTS, JSON.stringify(event) + "\n");

function act({ wish, status = 200, headers, body }) {
  if (wish === "throw") throw new Error("boom");
  if (wish === "shape") return { hello: "world" };
  if (wish === "key") return { statusCode: 200, hello: "world" };
  return { statusCode: Number(status), headers, body };
}

exports.note = async (event) => (note(event), { statusCode: 200 });

exports.connect = async (event) => {
  note(event);
  const { wish, status, protocol } = event.queryStringParameters ?? {};
  return act({ wish, status, headers: protocol && { "Sec-WebSocket-Protocol": protocol } });
};

exports.message = async (event) => {
  note(event);
  let wishes = {};
  try {
    wishes = JSON.parse(event.body);
  } catch {}
  return act({ body: event.requestContext.routeKey, ...wishes });
};
