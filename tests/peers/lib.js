// What every peer shares: a loopback server on a free port, a control server, the ready
// line that tests wait for, and an end together with the process that started it.

import http from 'node:http';
import { once } from 'node:events';

// Nobody reads standard output past the ready line: a library's remarks would break the pipe.
console.log = console.error;
console.info = console.error;

/** The JSON given as the first argument. */
export const options = JSON.parse(process.argv[2] ?? '{}');

/** Listens on loopback; port 0 takes a free one. Resolves to the port. */
export async function listen(server, port = 0) {
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return server.address().port;
}

/** Reads a whole request body. */
export async function readBody(req) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Answers with JSON. */
export function json(res, status, value, headers = {}) {
  const text = JSON.stringify(value);
  res.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    ...headers,
  });
  res.end(text);
}

/** Starts the control server: `POST /<command>` with a JSON object; the answer is JSON. */
export async function control(commands) {
  const server = http.createServer(async (req, res) => {
    const name = req.url.slice(1);
    try {
      const text = (await readBody(req)).toString();
      const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
      if (!command) return json(res, 404, { error: `no command ${name}` });
      json(res, 200, (await command(text ? JSON.parse(text) : {})) ?? {});
    } catch (error) {
      json(res, 400, { error: String(error.stack ?? error) });
    }
  });
  return listen(server);
}

/** Counts by key. */
export class Counter {
  counts = {};
  add(key) {
    this.counts[key] = (this.counts[key] ?? 0) + 1;
  }
  take() {
    const counts = this.counts;
    this.counts = {};
    return counts;
  }
}

/** A server that can go away with all its connections and come back on the same port. */
export class Outages {
  #sockets = new Set();
  constructor(server) {
    this.server = server;
    server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
  }
  async begin() {
    if (!this.server.listening) return;
    const closed = once(this.server, 'close');
    this.server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
  async end(port) {
    if (!this.server.listening) await listen(this.server, port);
  }
}

/** Requests that wait until they are let go. */
export class Gate {
  #waiting = new Set();
  #watchers = new Set();
  get waiting() {
    return this.#waiting.size;
  }
  wait(gone) {
    return new Promise((resolve) => {
      const go = () => {
        this.#waiting.delete(go);
        resolve();
      };
      this.#waiting.add(go);
      gone?.once('close', go);
      for (const watcher of [...this.#watchers]) watcher();
    });
  }
  /** Resolves once at least `count` requests wait: a barrier for tests. */
  until(count) {
    return new Promise((resolve) => {
      const look = () => {
        if (this.#waiting.size < count) return;
        this.#watchers.delete(look);
        resolve({ waiting: this.#waiting.size });
      };
      this.#watchers.add(look);
      look();
    });
  }
  release() {
    const count = this.#waiting.size;
    for (const go of [...this.#waiting]) go();
    return count;
  }
}

/** Tells the parent that everything is up. */
export function ready(facts) {
  process.stdout.write(`${JSON.stringify({ ready: true, ...facts })}\n`);
}

// A parent that dies without killing its peers closes their standard input.
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
