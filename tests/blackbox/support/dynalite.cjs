// DynamoDB without Amazon, at a free port, which is printed.
const server = require(process.argv[2])({ createTableMs: 0 });
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
