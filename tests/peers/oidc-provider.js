// A certified OpenID provider on loopback, issuing JWT access tokens.
//
// Options: {"trailingSlash": bool, "down": bool, "ttl": seconds}
// Resources (RFC 8707): `<anything>:<alg>` as in `urn:hawkgate:RS256` picks the signature
// algorithm; the token's `aud` is the resource, or the `audience` parameter where one is
// sent (an absolute URI is required of a resource, but not of an audience).
//
// Control: rotate, down, up, mode, counts, token, keys.

import http from 'node:http';
import { exportJWK, generateKeyPair } from 'jose';
import Provider, { errors } from 'oidc-provider';
import { control, Counter, Gate, json, listen, options, Outages, ready } from './lib.js';

const USER_GRANT = 'urn:hawkgate:test:user';
const ALGORITHMS = ['RS256', 'PS256', 'ES256', 'EdDSA'];
const KEY_OF = { RS256: 'rsa', PS256: 'rsa', ES256: 'ec', EdDSA: 'okp' };
const CLIENT = { id: 'hawkgate-tests', secret: 'tests-only-client-secret' };
const SCOPES = ['read', 'write', 'admin', 'taskcluster-credentials'];

let generation = 0;
async function newKeys() {
  generation += 1;
  const make = async (kind, alg, extra) => {
    const { privateKey } = await generateKeyPair(alg, { extractable: true, ...extra });
    // No `alg` on the RSA key: one key then serves RS256 and PS256.
    return { ...(await exportJWK(privateKey)), kid: `${kind}-${generation}`, use: 'sig' };
  };
  return Promise.all([
    make('rsa', 'RS256', { modulusLength: 2048 }),
    make('ec', 'ES256'),
    make('okp', 'EdDSA', { crv: 'Ed25519' }),
  ]);
}

// One storage for every Provider built here, so that what was registered outlives a rotation.
const stores = new Map();
class Adapter {
  constructor(name) {
    if (!stores.has(name)) stores.set(name, new Map());
    this.store = stores.get(name);
  }
  async upsert(id, payload) {
    this.store.set(id, payload);
  }
  async find(id) {
    return this.store.get(id);
  }
  async #findBy(key, value) {
    return [...this.store.values()].find((payload) => payload[key] === value);
  }
  async findByUid(uid) {
    return this.#findBy('uid', uid);
  }
  async findByUserCode(userCode) {
    return this.#findBy('userCode', userCode);
  }
  async consume(id) {
    const payload = this.store.get(id);
    if (payload) payload.consumed = Math.floor(Date.now() / 1000);
  }
  async destroy(id) {
    this.store.delete(id);
  }
  async revokeByGrantId(grantId) {
    for (const [id, payload] of this.store) if (payload.grantId === grantId) this.store.delete(id);
  }
}

function resourceServer(resource) {
  const alg = resource.split(':').at(-1);
  if (!ALGORITHMS.includes(alg)) throw new errors.InvalidTarget();
  return {
    scope: SCOPES.join(' '),
    accessTokenTTL: options.ttl ?? 600,
    accessTokenFormat: 'jwt',
    jwt: { sign: { alg, kid: keys.find((key) => key.kid.startsWith(KEY_OF[alg])).kid } },
  };
}

function build(issuer) {
  const provider = new Provider(issuer, {
    adapter: Adapter,
    jwks: { keys },
    clients: [
      {
        client_id: CLIENT.id,
        client_secret: CLIENT.secret,
        redirect_uris: [],
        response_types: [],
        grant_types: ['client_credentials', USER_GRANT],
      },
    ],
    scopes: SCOPES,
    findAccount: async (_ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: async (_ctx, resource) => resourceServer(resource),
      },
    },
    formats: {
      customizers: {
        // What a tenant's own configuration would do: another audience, `typ`, claims.
        jwt(ctx, _token, jwt) {
          const { audience, typ, claims } = ctx.oidc?.params ?? {};
          if (audience) jwt.payload.aud = audience;
          if (typ) jwt.header = { typ };
          if (claims) Object.assign(jwt.payload, JSON.parse(claims));
        },
      },
    },
  });
  provider.on('server_error', (_ctx, error) => console.error(error));
  provider.registerGrantType(
    USER_GRANT,
    async (ctx) => {
      const { sub, scope, resource } = ctx.oidc.params;
      const token = new provider.AccessToken({
        client: ctx.oidc.client,
        accountId: sub,
        gty: 'test_user',
        grantId: `grant-${sub}`,
        scope,
      });
      token.resourceServer = new provider.ResourceServer(resource, resourceServer(resource));
      ctx.body = {
        access_token: await token.save(),
        token_type: 'Bearer',
        expires_in: token.expiration,
        scope,
      };
    },
    ['sub', 'resource', 'scope', 'audience', 'typ', 'claims'],
  );
  return provider.callback();
}

let keys = await newKeys();
let handle;
let mode = 'ok';
const counts = new Counter();
const gate = new Gate();

const isKeys = (url) => url.startsWith('/jwks');
const isDiscovery = (url) => url.includes('/.well-known/');

/** The odd answers; true when one was given. */
async function misbehave(req, res) {
  if (!isKeys(req.url) && !(mode.startsWith('all-') && isDiscovery(req.url))) return false;
  switch (mode.replace('all-', '')) {
    case 'error':
      json(res, 500, { error: 'server_error' });
      return true;
    case 'garbage':
      res.writeHead(200, { 'content-type': 'application/jwk-set+json' });
      res.end('<html>not a key set</html>');
      return true;
    case 'huge': {
      const padding = 'x'.repeat(1024);
      const extra = Array.from({ length: 512 }, (_, n) => ({ kty: 'oct', kid: `${n}-${padding}` }));
      json(res, 200, { keys: extra });
      return true;
    }
    case 'redirect':
      res.writeHead(302, { location: '/elsewhere' });
      res.end();
      return true;
    case 'slow':
      await gate.wait(res);
      return false;
    default:
      return false;
  }
}

const server = http.createServer(async (req, res) => {
  if (isKeys(req.url)) counts.add('jwks');
  else if (isDiscovery(req.url)) counts.add('discovery');
  else counts.add('other');
  if (!(await misbehave(req, res))) handle(req, res);
});
const outages = new Outages(server);
const port = await listen(server);
const issuer = `http://127.0.0.1:${port}${options.trailingSlash ? '/' : ''}`;
handle = build(issuer);

/** A token by the certified provider's own token endpoint, whatever is wrong with the JWKS one. */
async function token({ alg = 'RS256', sub, ...rest }) {
  const params = { resource: `urn:hawkgate:${alg}`, ...rest };
  if (sub === undefined) params.grant_type = 'client_credentials';
  else Object.assign(params, { grant_type: USER_GRANT, sub });
  if (params.claims) params.claims = JSON.stringify(params.claims);
  // A listener of its own, so that tokens can be had while the provider is down.
  const back = http.createServer((req, res) => {
    req.headers.host = `127.0.0.1:${port}`;
    handle(req, res);
  });
  const backPort = await listen(back);
  try {
    const answer = await fetch(`http://127.0.0.1:${backPort}/token`, {
      method: 'POST',
      headers: {
        authorization: `Basic ${Buffer.from(`${CLIENT.id}:${CLIENT.secret}`).toString('base64')}`,
        connection: 'close',
      },
      body: new URLSearchParams(params),
    });
    const body = await answer.json();
    if (!answer.ok) throw new Error(`token endpoint: ${answer.status} ${JSON.stringify(body)}`);
    return body;
  } finally {
    back.closeAllConnections();
    back.close();
  }
}

const controlPort = await control({
  async rotate() {
    keys = await newKeys();
    handle = build(issuer);
    return { kids: keys.map((key) => key.kid) };
  },
  down: () => outages.begin(),
  up: () => outages.end(port),
  mode({ mode: wanted }) {
    mode = wanted;
    return { released: gate.release() };
  },
  counts: () => counts.counts,
  untilWaiting: ({ count }) => gate.until(count),
  token,
});
if (options.down) await outages.begin();

ready({ port, control: controlPort, issuer, client: CLIENT, jwks: `http://127.0.0.1:${port}/jwks` });
