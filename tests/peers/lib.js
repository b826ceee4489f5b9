// Shared by all peers: loopback servers on free ports, control servers, outages and barriers.

import http from 'node:http';
import { once } from 'node:events';

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

/** Responds with JSON. */
export function json(res, status, value, headers = {}) {
  const text = JSON.stringify(value);
  res.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    ...headers,
  });
  res.end(text);
}

/** The servers of one instance of a peer, stopped together. */
export class Instance {
  #servers = new Set();
  #cleanups = [];

  /** Runs `cleanup` when the instance stops. */
  onStop(cleanup) {
    this.#cleanups.push(cleanup);
  }

  /** As `listen`; the server is closed when the instance stops. */
  listen(server, port) {
    this.#servers.add(server);
    return listen(server, port);
  }

  /** Starts a control server: `POST /<command>` with a JSON object; the response is JSON. */
  control(commands) {
    return this.listen(controlServer(commands));
  }

  stop() {
    for (const cleanup of this.#cleanups) cleanup();
    for (const server of this.#servers) {
      server.close();
      server.closeAllConnections();
    }
  }
}

function controlServer(commands) {
  return http.createServer(async (req, res) => {
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

/** Takes a server down, with its connections, and brings it back on the same port. */
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

/** Delays requests until `release`. */
export class Latch {
  #waiting = new Set();
  #watchers = new Set();
  get waiting() {
    return this.#waiting.size;
  }
  wait(connection) {
    return new Promise((resolve) => {
      const go = () => {
        this.#waiting.delete(go);
        resolve();
      };
      this.#waiting.add(go);
      connection?.once('close', go);
      for (const watcher of [...this.#watchers]) watcher();
    });
  }
  /** Resolves once at least `count` requests are waiting. */
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
