// Runs a Lambda handler, as AWS' runtime for Node.js does: asks the Runtime API for events, and posts what the handler returns.
// Comes by standard input, so that it needs no file. Node.js 18 or newer, nothing else.
import { AsyncLocalStorage } from 'node:async_hooks';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { format } from 'node:util';

const env = process.env;
const [host, port] = env.AWS_LAMBDA_RUNTIME_API.split(':');
const root = env.LAMBDA_TASK_ROOT;
const concurrency = Number(env.AWS_LAMBDA_MAX_CONCURRENCY ?? 1);
const agent = new Agent({ keepAlive: true });
const current = new AsyncLocalStorage();
/** What runs, by request id. */
const running = new Map();

if (env.AWS_EXECUTION_ENV === 'AWS_Lambda_nodejs') {
  env.AWS_EXECUTION_ENV += `${process.versions.node.split('.')[0]}.x`;
}

class RuntimeError extends Error {
  constructor(name, message, cause) {
    super(message);
    this.name = name;
    if (cause?.stack) this.stack = `${name}: ${message}\n${cause.stack}`;
  }
}

function call(method, where, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const options = { host, port, method, path: `/2018-06-01/runtime/${where}`, agent, headers };
    if (body !== undefined) {
      headers['Content-Type'] = 'application/json';
      headers['Content-Length'] = Buffer.byteLength(body);
    }
    const asked = request(options, (answer) => {
      const parts = [];
      answer.on('data', (part) => parts.push(part));
      answer.on('error', reject);
      answer.on('end', () => resolve({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(parts) }));
    });
    asked.on('error', reject);
    asked.end(body);
  });
}

// Lines as on Lambda: time, request, level, message; one line each, however many the message has.
for (const [name, level] of Object.entries({ log: 'INFO', info: 'INFO', warn: 'WARN', error: 'ERROR', debug: 'DEBUG', trace: 'TRACE' })) {
  console[name] = (...parts) => {
    let text = format(...parts);
    if (name === 'trace') text = new RuntimeError('Trace', text).stack;
    const id = current.getStore()?.id ?? (running.size === 1 ? running.keys().next().value : undefined);
    process.stdout.write(`${new Date().toISOString()}\t${id ?? 'undefined'}\t${level}\t${text.replace(/\r?\n/g, '\r')}\n`);
  };
}

function described(error) {
  if (error instanceof Error || (error && typeof error.stack === 'string')) {
    return { errorType: error.name ?? 'Error', errorMessage: String(error.message), trace: String(error.stack).split('\n') };
  }
  let text;
  try {
    text = typeof error === 'object' ? JSON.stringify(error) : String(error);
  } catch {
    text = String(error);
  }
  return { errorType: error === null ? 'null' : typeof error, errorMessage: text, trace: [] };
}

function report(where, error) {
  const what = described(error);
  const type = what.errorType.replace(/[^\x21-\x7e]/g, '?');
  return call('POST', where, JSON.stringify(what), { 'Lambda-Runtime-Function-Error-Type': type });
}

/** Reports to whoever waits, then exits. */
async function die(error, code) {
  process.removeAllListeners('beforeExit');
  try {
    console.error(error);
    const runs = [...running.values()].filter((run) => !run.isOver);
    for (const run of runs) run.isOver = true;
    await Promise.all(runs.length ? runs.map((run) => report(`invocation/${run.id}/error`, error)) : handler ? [] : [report('init/error', error)]);
  } finally {
    process.exit(code);
  }
}

process.on('uncaughtException', (error) => die(error, 129));
process.on('unhandledRejection', (reason) => {
  const what = described(reason);
  die(new RuntimeError('Runtime.UnhandledPromiseRejection', `${what.errorType}: ${what.errorMessage}`, reason), 128);
});

function isModule(file) {
  if (file.endsWith('.mjs')) return true;
  if (!file.endsWith('.js')) return false;
  for (let folder = path.dirname(file); ; folder = path.dirname(folder)) {
    const description = path.join(folder, 'package.json');
    if (existsSync(description)) {
      try {
        return JSON.parse(readFileSync(description, 'utf8')).type === 'module';
      } catch {
        return false;
      }
    }
    if (folder === path.dirname(folder)) return false;
  }
}

async function load(name) {
  const folder = path.dirname(name);
  const [base, ...names] = path.basename(name).split('.');
  if (name.includes('..') || !base || !names.length || names.includes('')) {
    throw new RuntimeError('Runtime.MalformedHandlerName', `"${name}" is no handler; write FILE.EXPORT, such as index.handler`);
  }
  const stem = path.resolve(root, folder, base);
  const file = ['', '.js', '.mjs', '.cjs'].map((end) => stem + end).find((file) => statSync(file, { throwIfNoEntry: false })?.isFile());
  const require = createRequire(path.join(root, 'index.js'));
  let module;
  try {
    if (!file) module = require(stem);
    else module = isModule(file) ? await import(pathToFileURL(file)) : require(file);
  } catch (error) {
    if (error instanceof SyntaxError || error?.name === 'SyntaxError') throw new RuntimeError('Runtime.UserCodeSyntaxError', `SyntaxError: ${error.message}`, error);
    if (['MODULE_NOT_FOUND', 'ERR_MODULE_NOT_FOUND'].includes(error?.code)) {
      throw new RuntimeError('Runtime.ImportModuleError', `Error: ${error.message.split('\n')[0]}`, error);
    }
    throw error;
  }
  const found = (from) => names.reduce((part, name) => part?.[name], from);
  const handler = found(module) ?? found(module?.default);
  if (handler === undefined) throw new RuntimeError('Runtime.HandlerNotFound', `${path.relative(root, stem)} exports no ${names.join('.')}`);
  if (typeof handler !== 'function') throw new RuntimeError('Runtime.HandlerNotFound', `${name} is no function`);
  return handler;
}

function contextOf(id, headers, settle) {
  const deadline = Number(headers['lambda-runtime-deadline-ms']);
  const json = (name) => (headers[name] ? JSON.parse(headers[name]) : undefined);
  const done = (error, value) => (error === undefined || error === null ? settle.resolve(value) : settle.reject(error));
  return {
    awsRequestId: id,
    invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'],
    functionName: env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: env.AWS_LAMBDA_FUNCTION_VERSION,
    memoryLimitInMB: env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: env.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext: json('lambda-runtime-client-context'),
    identity: json('lambda-runtime-cognito-identity'),
    callbackWaitsForEmptyEventLoop: true,
    getRemainingTimeInMillis: () => Math.max(0, deadline - Date.now()),
    done,
    succeed: (value) => done(null, value),
    fail: (error) => done(error ?? 'handled'),
  };
}

/** What a handler gives: by a promise, at once, by its third argument, or by its context. */
function result(run, event, headers) {
  return new Promise((resolve, reject) => {
    run.settle = { resolve, reject };
    const context = contextOf(run.id, headers, run.settle);
    const value = handler(event, context, context.done);
    if (typeof value?.then === 'function') value.then(resolve, reject);
    else if (value !== undefined || handler.length < 2) {
      if (handler.length < 3) resolve(value);
    }
  });
}

// Nothing is left to happen, so a handler that has not answered never will; on Lambda its result is null then.
process.on('beforeExit', () => {
  for (const run of running.values()) run.settle?.resolve(null);
});

async function serve() {
  for (;;) {
    const { status, headers, body } = await call('GET', 'invocation/next');
    if (status !== 200) throw new Error(`the Runtime API answered ${status}`);
    const run = { id: headers['lambda-runtime-aws-request-id'] };
    running.set(run.id, run);
    if (concurrency === 1) env._X_AMZN_TRACE_ID = headers['lambda-runtime-trace-id'];
    await current.run(run, async () => {
      let posted;
      try {
        const value = await result(run, JSON.parse(body), headers);
        let text;
        try {
          text = JSON.stringify(value ?? null) ?? 'null';
        } catch (error) {
          throw new RuntimeError('Runtime.MarshalError', `the result is not JSON: ${error.message}`, error);
        }
        if (run.isOver) return;
        run.isOver = true;
        posted = await call('POST', `invocation/${run.id}/response`, text);
      } catch (error) {
        if (run.isOver) throw error;
        run.isOver = true;
        console.error('Invoke Error', error);
        posted = await report(`invocation/${run.id}/error`, error);
      }
      if (posted.status !== 202) console.error(`the Runtime API refused the result: ${posted.status} ${posted.body}`);
    });
    running.delete(run.id);
  }
}

let handler;
try {
  handler = await load(env._HANDLER);
} catch (error) {
  await die(error, 1);
}
try {
  await Promise.all(Array.from({ length: concurrency }, serve));
} catch {
  // The node is gone, or wants this process to be.
  process.exit(1);
}
