// The peer Socket.IO: rooms, the WebSocket transport only; with a Redis URL as argument one of many nodes, by its Redis adapter.
// Rule: everything leaves as one event, so that a client needs to know no other.
'use strict';

const packages = require('node:module').createRequire(`${__dirname}/.installed/`);
const { createServer } = require('node:http');
const { Server } = packages('socket.io');

const EVENT = 'message';
const BACKLOG = 4096;

async function adapter(url) {
  const { createAdapter } = packages('@socket.io/redis-adapter');
  const publisher = packages('redis').createClient({ url });
  const subscriber = publisher.duplicate();
  for (const client of [publisher, subscriber]) {
    client.on('error', (fault) => console.error(fault));
  }
  await Promise.all([publisher.connect(), subscriber.connect()]);
  return createAdapter(publisher, subscriber);
}

async function main([redisUrl]) {
  const http = createServer();
  const io = new Server(http, { transports: ['websocket'], serveClient: false });
  if (redisUrl) {
    io.adapter(await adapter(redisUrl));
  }
  io.on('connection', (socket) => {
    socket.on('sendMessage', (data) => io.emit(EVENT, data));
    socket.on('sendToGroup', (group, data) => io.to(group).emit(EVENT, data));
    socket.on('joinGroup', async (group) => {
      await socket.join(group);
      socket.emit(EVENT, `joined ${group}`);
    });
  });
  console.log(`version:Socket.IO-${packages('socket.io/package.json').version}/Node-${process.versions.node}`);
  http.listen(0, '127.0.0.1', BACKLOG, () => console.log(`port:${http.address().port}`));
}

main(process.argv.slice(2)).catch((fault) => {
  console.error(fault);
  process.exit(1);
});
