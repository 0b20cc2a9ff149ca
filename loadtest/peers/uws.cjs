// The peer uWebSockets.js, which stands in for uws.cpp where that cannot be compiled: the topic tree does the fan-out in C++; a
// message costs one callback in JavaScript.
// Rule: as its authors recommend: topics, no compression, and never cut a slow client, since the load test wants every message.
'use strict';

const packages = require('node:module').createRequire(`${__dirname}/.installed/`);

// npm has it only under other names. The first that loads here is taken: builds differ in the C library they ask for.
const BUILDS = ['@btc-vision/uwebsockets.js', '@trufflesuite/uws-js-unofficial'];
const EVERYBODY = 'everybody';
const MAX_BACKPRESSURE = 64 << 20;
const MAX_MESSAGE = 1 << 20;

function load() {
  const faults = [];
  for (const name of BUILDS) {
    try {
      return [packages(name), `${name.split('/').pop()}-${packages(`${name}/package.json`).version}`];
    } catch (fault) {
      faults.push(`${name}: ${fault.message.trim().split('\n').pop()}`);
    }
  }
  console.error(faults.join('\n'));
  process.exit(1);
}

const [uws, version] = load();
if (process.argv.includes('--version')) {
  console.log(version);
  process.exit();
}

const app = uws.App();
app.ws('/*', {
  compression: uws.DISABLED,
  maxBackpressure: MAX_BACKPRESSURE,
  maxPayloadLength: MAX_MESSAGE,
  open: (socket) => socket.subscribe(EVERYBODY),
  message: (socket, bytes) => {
    const { action, group, data } = JSON.parse(Buffer.from(bytes).toString());
    if (action === 'sendMessage') {
      app.publish(EVERYBODY, data);
    } else if (action === 'sendToGroup') {
      app.publish(`group/${group}`, data);
    } else if (action === 'joinGroup') {
      socket.subscribe(`group/${group}`);
      socket.send(`joined ${group}`);
    }
  },
});
console.log(`version:${version}/Node-${process.versions.node}`);
app.listen('127.0.0.1', 0, (listener) => console.log(`port:${uws.us_socket_local_port(listener)}`));
