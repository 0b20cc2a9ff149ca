// The peer `ws`: a loop over the clients, as its README does it.
// Rule: no compression, and the bytes of a message are made once, not once for each client.
'use strict';

const packages = require('node:module').createRequire(`${__dirname}/.installed/`);
const { WebSocket, WebSocketServer } = packages('ws');

const BACKLOG = 4096;
const groups = new Map();
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, backlog: BACKLOG, perMessageDeflate: false });

function sendToAll(clients, data) {
  const bytes = Buffer.from(data);
  for (const client of clients) {
    if (client.readyState === WebSocket.OPEN) {
      client.send(bytes, { binary: false });
    }
  }
}

function join(socket, group) {
  if (!groups.has(group)) {
    groups.set(group, new Set());
  }
  groups.get(group).add(socket);
  socket.on('close', () => groups.get(group).delete(socket));
  socket.send(`joined ${group}`);
}

server.on('connection', (socket) => {
  socket.on('error', (fault) => console.error(fault));
  socket.on('message', (bytes) => {
    const { action, group, data } = JSON.parse(bytes);
    if (action === 'sendMessage') {
      sendToAll(server.clients, data);
    } else if (action === 'sendToGroup') {
      sendToAll(groups.get(group) ?? [], data);
    } else if (action === 'joinGroup') {
      join(socket, group);
    }
  });
});
console.log(`version:ws-${packages('ws/package.json').version}/Node-${process.versions.node}`);
server.on('listening', () => console.log(`port:${server.address().port}`));
