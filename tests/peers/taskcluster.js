// An imitation of a Taskcluster deployment: an API that verifies Hawk as the auth service does
// (hawk-check.js), the endpoint that exchanges a token for credentials, and the OAuth2 provider of
// its web-server (taskcluster-oauth.js).
//
// Options: {"tls": {"cert": PEM, "key": PEM}, "keepAlive": ms,
//           "clients": {clientId: {accessToken, scopes, expires?}},
//           "login": {"issuer", "jwks", "audience", "scopes": [..]}}
//
// Under /api/test/v1/: open, scoped/<scope>, status/<code>, redirect, not-modified, gzip,
// poll, socket. /api/index/v1/tasks/<namespace> lists one task, for callers with the scope
// index:list-tasks:<namespace>. Everything else below /api/ echoes. All except `open` require credentials.
// Control: client, removeClient, revoke, clock, login, oauthToken, oauthClient, signIn, fail, release,
// untilWaiting, requests, counts, minted.

import crypto from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import zlib from 'node:zlib';
import { createRemoteJWKSet, jwtVerify } from 'jose';
import { InternalError, Clients, isRefusal, mint, satisfies } from './hawk-check.js';
import { json, Latch, readBody } from './lib.js';
import { OAuthProvider } from './taskcluster-oauth.js';

const MINUTE = 60_000;
const MAX_BODY = 10 * 1024 * 1024;
const MAX_RECORDED = 10_000;
const LOGIN_ISSUER = 'project/taskcluster/login';
/** The names by which `fail` knows the endpoints of taskcluster-oauth.js. */
const OAUTH = {
  '/login/oauth/authorize': 'oauth-authorize',
  '/login/oauth/token': 'oauth-token',
  '/login/oauth/credentials': 'oauth',
};

/** Starts one instance; resolves to the facts that tests need. */
export async function start(options, instance) {
  const clock = { offset: 0, fixed: undefined };
  const now = () => (clock.fixed ?? Date.now()) + clock.offset;
  const clients = new Clients(now);
  const latch = new Latch();
  const recorded = [];
  const newKey = () => crypto.randomBytes(33).toString('base64url');

  for (const [clientId, client] of Object.entries(options.clients ?? {})) clients.set(clientId, client);

  /** An error as Taskcluster formats it, with the request body echoed as the services do. */
  function apiError(req, res, status, code, message, payload, headers = {}) {
    res.peerNote = message;
    json(res, status, {
      code,
      message,
      requestInfo: { method: req.method, params: {}, payload, time: new Date(now()).toISOString() },
    }, headers);
  }

  const unauthorized = (req, res, message, payload) =>
    apiError(req, res, 401, 'AuthenticationFailed', message, payload, { 'www-authenticate': 'hawk' });

  /** As in the services, JSON bodies are read before authentication, others after. */
  async function earlyBody(req) {
    if (!(req.headers['content-type'] ?? '').startsWith('application/json')) return undefined;
    return readBody(req);
  }

  function payloadOf(body) {
    try {
      return JSON.parse(body.toString());
    } catch {
      return {};
    }
  }

  async function api(req, res, path) {
    const early = await earlyBody(req);
    if (early && early.length > MAX_BODY) return apiError(req, res, 500, 'InternalServerError', 'too large', {});
    const payload = early ? payloadOf(early) : {};
    const open = path === '/api/test/v1/open';
    const scope = /^\/api\/test\/v1\/scoped\/(.*)$/.exec(path)?.[1];
    const namespace = /^\/api\/index\/v1\/tasks\/(.*)$/.exec(path)?.[1];
    let caller = null;
    if (!open) {
      try {
        caller = await clients.check(req, early);
      } catch (error) {
        if (isRefusal(error)) return unauthorized(req, res, error.message, payload);
        throw error;
      }
      const required = scope ? [decodeURIComponent(scope)] : [];
      if (namespace) required.push(`index:list-tasks:${decodeURIComponent(namespace)}`);
      if (!caller || !satisfies(caller.scopes, required)) {
        return apiError(req, res, 403, 'InsufficientScopes', `Client ID ${caller?.clientId ?? 'anonymous'} does not have sufficient scopes`, payload);
      }
      res.peerClient = caller.clientId;
    }
    const body = early ?? (await readBody(req));
    if (body.length > MAX_BODY) return apiError(req, res, 500, 'InternalServerError', 'too large', {});
    if (namespace) {
      const task = { namespace: `${decodeURIComponent(namespace)}.latest`, taskId: 'dSlITZ4yQgmvxxAi4A8fHQ', rank: 0, data: {}, expires: new Date(now() + MINUTE).toISOString() };
      return json(res, 200, { tasks: [task] });
    }
    return respond(req, res, path, echo(req, body, caller));
  }

  /** The request as received, without its secrets. */
  function echo(req, body, caller) {
    const { authorization, ...headers } = req.headers;
    return {
      method: req.method,
      url: req.url.replace(/([?&]bewit=)[^&]*/, '$1…'),
      headers,
      rawHeaderNames: req.rawHeaders.filter((_, index) => index % 2 === 0),
      scheme: authorization?.split(' ')[0] ?? null,
      body: { length: body.length, sha256: crypto.createHash('sha256').update(body).digest('hex') },
      clientId: caller?.clientId ?? null,
      scopes: caller?.scopes ?? [],
    };
  }

  async function respond(req, res, path, facts) {
    const what = path.startsWith('/api/test/v1/') ? path.slice('/api/test/v1/'.length).split('/')[0] : '';
    switch (what) {
      case 'redirect': {
        const url = 'https://artifacts.example.com/a%2Fb//c?bewit=not-yours&x=';
        return json(res, 303, { storageType: 's3', url }, { location: url });
      }
      case 'not-modified': {
        const etag = 'W/"peer-1"';
        if (req.headers['if-none-match'] !== etag) return json(res, 200, facts, { etag });
        res.writeHead(304, { etag });
        return res.end();
      }
      case 'gzip':
        res.writeHead(200, { 'content-type': 'application/json', 'content-encoding': 'gzip' });
        return zlib.createGzip().on('error', () => res.destroy()).end(JSON.stringify(facts)).pipe(res);
      case 'poll':
        await latch.wait(res);
        return json(res, 200, facts);
      case 'status':
        return json(res, Number(path.split('/').at(-1)), facts);
      default:
        return json(res, 200, facts);
    }
  }

  // Endpoints that exchange tokens -------------------------------------------------------

  let login = options.login;
  let keySet = login && createRemoteJWKSet(new URL(login.jwks));
  clients.set(LOGIN_ISSUER, { accessToken: newKey(), scopes: ['auth:create-client:mozilla-auth0/*', '*'] });

  /** Escapes `!` and characters not allowed in client ids, as the login service does. */
  const encodeSubject = (sub) =>
    sub.replace(/[^A-Za-z0-9@/:.+|_-]/g, (c) => `!${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`);

  async function legacyCredentials(req, res, provider) {
    const bad = (message) => apiError(req, res, 400, 'InputError', message, {});
    if (provider !== 'mozilla-auth0' || !login) return bad('Unknown provider');
    try {
      const token = /^Bearer (.+)$/.exec(req.headers.authorization ?? '')?.[1];
      const { payload } = await jwtVerify(token, keySet, {
        issuer: login.issuer,
        audience: login.audience,
        algorithms: ['RS256'],
        currentDate: new Date(now()),
      });
      if (!(payload.scope ?? '').split(' ').includes('taskcluster-credentials')) throw new Error('scope');
      const clientId = `mozilla-auth0/${encodeSubject(payload.sub)}`;
      const expiry = Math.min(now() + 15 * MINUTE, payload.exp * 1000);
      const credentials = mint({
        clientId,
        issuer: LOGIN_ISSUER,
        key: clients.get(LOGIN_ISSUER).accessToken,
        scopes: [`assume:login-identity:${clientId}`, ...(login.scopes ?? [])],
        start: now() - 15 * MINUTE,
        expiry,
      });
      clients.remember(JSON.parse(credentials.certificate).seed);
      minted.push(credentials);
      return json(res, 200, { expires: new Date(expiry - 30_000).toISOString(), credentials });
    } catch {
      return bad('Could not generate credentials for this access token');
    }
  }

  const minted = [];
  const oauth = new OAuthProvider(clients, minted, now);

  // Failures on demand -------------------------------------------------------------------

  const failures = {};

  /** The failure configured for the next request to this endpoint, if any. */
  function nextFailure(endpoint) {
    const failure = failures[endpoint];
    if (!failure) return undefined;
    if (failure.times !== undefined) {
      failure.times -= 1;
      if (failure.times < 0) {
        delete failures[endpoint];
        return undefined;
      }
    }
    return failure;
  }

  /** True if the failure is the whole response. */
  async function fail(failure, req, res) {
    switch (failure?.mode) {
      case 'error':
        json(res, failure.status ?? 500, { code: 'InternalServerError', message: 'Internal Server Error' });
        return true;
      case 'retry-after':
        json(res, failure.status ?? 503, { message: 'later' }, { 'retry-after': String(failure.seconds ?? 7) });
        return true;
      case 'html':
        res.writeHead(failure.status ?? 502, { 'content-type': 'text/html' });
        res.end('<html><body>Bad gateway</body></html>');
        return true;
      case 'huge':
        json(res, 200, { padding: 'x'.repeat(4 * 1024 * 1024) });
        return true;
      case 'unauthorized':
        unauthorized(req, res, failure.message ?? 'Unauthorized: Bad mac', {});
        return true;
      case 'disconnect':
        res.destroy();
        return true;
      case 'slow':
        await latch.wait(res);
        return false;
      default:
        return false;
    }
  }

  // Routing ------------------------------------------------------------------------------

  async function handle(req, res) {
    const path = req.url.split('?')[0];
    const legacy = /^(?:\/api\/login)?\/v1\/oidc-credentials\/([^/]*)$/.exec(path);
    const endpoint = legacy ? 'login' : path.startsWith('/login/oauth/') ? OAUTH[path] : 'api';
    if (await fail(nextFailure(endpoint), req, res)) return undefined;
    if (legacy) return legacyCredentials(req, res, decodeURIComponent(legacy[1]));
    if (await oauth.respond(req, res)) return undefined;
    if (path.startsWith('/api/')) return api(req, res, path);
    return json(res, 404, { error: 'Not found' });
  }

  function onRequest(req, res) {
    res.setHeader('date', new Date(now()).toUTCString());
    res.setHeader('access-control-allow-origin', '*');
    res.setHeader('x-for-request-id', crypto.randomUUID());
    if (options.tls) {
      // As behind a load balancer that terminates TLS.
      req.headers['x-forwarded-proto'] = 'https';
      req.headers['x-forwarded-port'] = String(port);
    }
    const entry = { method: req.method, path: req.url.split('?')[0], status: 0 };
    if (recorded.length < MAX_RECORDED) recorded.push(entry);
    res.on('close', () => {
      Object.assign(entry, { status: res.statusCode, note: res.peerNote, clientId: res.peerClient, finished: res.writableFinished });
    });
    handle(req, res).catch((error) => {
      if (!(error instanceof InternalError)) console.error(error);
      if (!res.headersSent) json(res, 500, { code: 'InternalServerError', message: 'Internal Server Error' });
      else res.destroy();
    });
  }

  /** A WebSocket that echoes every byte, which shows that both directions work. */
  async function upgrade(req, socket, head) {
    const refuse = (status) => socket.end(`HTTP/1.1 ${status}\r\nwww-authenticate: hawk\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`);
    socket.on('error', () => socket.destroy());
    const entry = { method: req.method, path: req.url.split('?')[0], status: 101, upgrade: true };
    recorded.push(entry);
    try {
      const caller = await clients.check(req);
      if (!caller) throw new Error('anonymous');
      entry.clientId = caller.clientId;
    } catch (error) {
      entry.status = 401;
      entry.note = error.message;
      return refuse('401 Unauthorized');
    }
    const accept = crypto
      .createHash('sha1')
      .update(`${req.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
      .digest('base64');
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ${accept}\r\n\r\n`);
    if (head.length) socket.write(head);
    return socket.pipe(socket);
  }

  const server = options.tls ? https.createServer(options.tls, onRequest) : http.createServer(onRequest);
  server.keepAliveTimeout = options.keepAlive ?? 90_000;
  server.requestTimeout = 0;
  server.on('upgrade', upgrade);
  const port = await instance.listen(server);

  const controlPort = await instance.control({
    client({ clientId, ...client }) {
      clients.set(clientId, client);
    },
    removeClient: ({ clientId }) => ({ removed: clients.delete(clientId) }),
    /** Revokes all credentials issued so far; the next exchange issues new ones. */
    revoke() {
      clients.revokeSeen();
      for (const { clientId, certificate } of minted) if (!certificate) clients.delete(clientId);
    },
    clock: (next) => Object.assign(clock, next),
    login(next) {
      login = next;
      keySet = createRemoteJWKSet(new URL(login.jwks));
    },
    oauthToken: (options) => oauth.token(options),
    /** Registers an OAuth2 client: `{id, redirectUris, scopes, lifetime}`; the lifetime in milliseconds. */
    oauthClient({ id, lifetime = 86_400_000, ...client }) {
      oauth.registered.set(id, { lifetime, ...client });
    },
    /** What a browser does between the authorization request and the callback, whose location it returns. */
    async signIn({ url, person = 'ada' }) {
      const res = await fetch(url, { method: 'POST', body: new URLSearchParams({ person }), redirect: 'manual' });
      return { status: res.status, location: res.headers.get('location') };
    },
    fail({ endpoint, ...failure }) {
      if (failure.mode) failures[endpoint] = failure;
      else delete failures[endpoint];
    },
    release: () => ({ released: latch.release() }),
    untilWaiting: ({ count }) => latch.until(count),
    requests: () => ({ requests: recorded }),
    /** `{"GET /path 200": n}`; requests still in flight have status 0. */
    counts() {
      const counts = {};
      for (const { method, path, status } of recorded) {
        const key = `${method} ${path} ${status}`;
        counts[key] = (counts[key] ?? 0) + 1;
      }
      return counts;
    },
    /** Every credential issued so far, for leak tests. */
    minted: () => ({ minted }),
  });

  return { port, control: controlPort, url: `${options.tls ? 'https' : 'http'}://127.0.0.1:${port}` };
}
