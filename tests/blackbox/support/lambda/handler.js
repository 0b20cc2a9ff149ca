exports.handler = async (event) => {
  const body = event.body || "";
  if (body.includes("throw")) throw new TypeError("boom");
  if (body.includes("sleep")) await new Promise((resolve) => setTimeout(resolve, 20_000));
  return { statusCode: 200, body: "to " + body };
};
