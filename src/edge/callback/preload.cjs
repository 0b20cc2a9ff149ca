// Connections with TLS to hosts of MAPPED_HOSTS (`address:port name name ...`) go to that address; the name that is asked
// for, and checked, stays. `https`, `http2` and `fetch` connect by tls.connect.
'use strict';
const tls = require('node:tls');
const { syncBuiltinESMExports } = require('node:module');

const [address, ...names] = (process.env.MAPPED_HOSTS ?? '').split(' ').filter(Boolean);
const hosts = new Set(names);

if (hosts.size > 0) {
  const colon = address.lastIndexOf(':');
  const home = {
    host: address.slice(0, colon).replace(/^\[|\]$/g, ''),
    port: Number(address.slice(colon + 1)),
  };
  const connect = tls.connect;
  const redirected = (options) => {
    const name = String(options.host ?? '').toLowerCase();
    if (options.socket || options.path || Number(options.port) !== 443 || !hosts.has(name)) return undefined;
    return { ...options, ...home, servername: options.servername || name };
  };
  // connect(options[, callback]), connect(port[, host][, options][, callback])
  tls.connect = function (...given) {
    const callback = typeof given.at(-1) === 'function' ? given.pop() : undefined;
    const [first, second, third] = given;
    const options = typeof first === 'object' && first !== null
      ? first
      : { ...(typeof second === 'object' ? second : third), port: first, ...(typeof second === 'string' && { host: second }) };
    const elsewhere = redirected(options);
    return elsewhere ? connect.call(this, elsewhere, callback) : connect.apply(this, arguments);
  };
  syncBuiltinESMExports();
}
