// A web application behind hawkgate, or another site: a page, an echo and a WebSocket.
//
// Options: {"tls": {"cert": PEM, "key": PEM}}
// `/page…` responds with an empty HTML page, `/status/<code>` with that status, `/set-cookie` with
// the `Set-Cookie` fields of the control command `cookies`, `/socket` is a WebSocket that echoes each
// Control: requests (those received so far), cookies, fields (of all responses from now on).

import crypto from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import { json, readBody } from './lib.js';

const PAGE = '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Application</title><link rel="icon" href="data:,"><h1>Application</h1></html>';

/** Starts one instance; resolves to the facts that tests need. */
export async function start(options, instance) {
  const requests = [];
  let cookies = [];
  let fields = {};

  async function handle(req, res) {
    const body = String(await readBody(req));
    const facts = { method: req.method, url: req.url, headers: req.headers, rawHeaders: req.rawHeaders, body };
    requests.push(facts);
    for (const [name, value] of Object.entries(fields)) res.setHeader(name, value);
    const path = req.url.split('?')[0];
    if (path.startsWith('/page')) {
      res.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
      return res.end(PAGE);
    }
    if (path === '/set-cookie') res.setHeader('set-cookie', cookies);
    const status = path.startsWith('/status/') ? Number(path.split('/')[2]) : 200;
    return json(res, status, facts);
  }

  /** A WebSocket that echoes short text messages (RFC 6455). */
  function upgrade(req, socket) {
    requests.push({ method: req.method, url: req.url, headers: req.headers, rawHeaders: req.rawHeaders, upgrade: true });
    socket.on('error', () => socket.destroy());
    const accept = crypto
      .createHash('sha1')
      .update(`${req.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
      .digest('base64');
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ${accept}\r\n\r\n`);
    let received = Buffer.alloc(0);
    socket.on('data', (bytes) => {
      received = Buffer.concat([received, bytes]);
      for (;;) {
        // FIN and opcode, mask bit and length (below 126), key, payload.
        if (received.length < 6) return;
        const length = received[1] & 0x7f;
        if (received.length < 6 + length) return;
        const key = received.subarray(2, 6);
        const payload = Buffer.from(received.subarray(6, 6 + length).map((byte, index) => byte ^ key[index % 4]));
        const frame = Buffer.concat([Buffer.from([received[0], length]), payload]);
        const closing = (received[0] & 0x0f) === 8;
        received = received.subarray(6 + length);
        if (closing) return socket.end(frame);
        socket.write(frame);
      }
    });
  }

  const onRequest = (req, res) =>
    handle(req, res).catch((error) => {
      console.error(error);
      res.destroy();
    });
  const server = options.tls ? https.createServer(options.tls, onRequest) : http.createServer(onRequest);
  server.on('upgrade', upgrade);
  const port = await instance.listen(server);

  const controlPort = await instance.control({
    requests: () => ({ requests }),
    cookies({ fields: next }) {
      cookies = next;
    },
    fields(next) {
      fields = next;
    },
  });
  return { port, control: controlPort, url: `${options.tls ? 'https' : 'http'}://127.0.0.1:${port}` };
}
