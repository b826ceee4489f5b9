// The OpenID-certified oidc-provider, issuing JWT and opaque access tokens.
//
// Options: {"trailingSlash": bool, "down": bool, "ttl": seconds}
// Resources (RFC 8707): `<anything>:<alg>`, as in `urn:hawkgate:RS256`, selects the signature
// algorithm, `<anything>:opaque` an opaque token. The token's `aud` is the resource, or the
// `audience` parameter if there is one (a resource must be an absolute URI, an audience need not).
//
// Clients: one for each authentication method (facts: client, oddClient, postClient, keyClient).
// Introspection (RFC 7662). Token exchange (RFC 8693), which oidc-provider does not implement, is
// a custom grant that verifies the subject token and issues a token through the provider.
//
// Control: rotate, down, up, mode, counts, untilWaiting, token, revoke.

import http from 'node:http';
import { createLocalJWKSet, exportJWK, exportPKCS8, generateKeyPair, jwtVerify } from 'jose';
import Provider, { errors } from 'oidc-provider';
import { Counter, json, Latch, listen, Outages } from './lib.js';

const USER_GRANT = 'urn:hawkgate:test:user';
const ALGORITHMS = ['RS256', 'PS256', 'ES256', 'EdDSA'];
const KEY_OF = { RS256: 'rsa', PS256: 'rsa', ES256: 'ec', EdDSA: 'okp' };
const EXCHANGE_GRANT = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
const CLIENT = { id: 'hawkgate-tests', secret: 'tests-only-client-secret' };
// With characters that survive only if the parts of a Basic header are form-encoded (RFC 6749 §2.3.1).
const ODD_CLIENT = { id: 'hawkgate:odd', secret: 'tests-only %+:/ secret' };
const POST_CLIENT = { id: 'hawkgate-post', secret: 'tests-only-post-secret' };
const keyPair = await generateKeyPair('ES256', { extractable: true });
const KEY_CLIENT = { id: 'hawkgate-key', pem: await exportPKCS8(keyPair.privateKey) };
const KEY_CLIENT_JWK = { ...(await exportJWK(keyPair.publicKey)), kid: 'client-1', use: 'sig' };
const SCOPES = ['read', 'write', 'admin', 'taskcluster-credentials'];

/** A key of each kind; `generation` distinguishes the keys of successive rotations. */
async function newKeys(generation) {
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

// Shared by all instances until they rotate: generating an RSA key is slow.
const firstKeys = await newKeys(1);

/** Starts one instance; resolves to the facts that tests need. */
export async function start(options, instance) {
  const publicKeys = () => keys.map(({ kty, kid, crv, x, y, n, e }) => ({ kty, kid, crv, x, y, n, e }));

  // One storage for every Provider built here, so that registrations outlive a rotation.
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
    if (alg === 'opaque') {
      return { scope: SCOPES.join(' '), accessTokenTTL: options.ttl ?? 600, accessTokenFormat: 'opaque' };
    }
    if (!ALGORITHMS.includes(alg)) throw new errors.InvalidTarget();
    return {
      scope: SCOPES.join(' '),
      accessTokenTTL: options.ttl ?? 600,
      accessTokenFormat: 'jwt',
      jwt: { sign: { alg, kid: keys.find((key) => key.kid.startsWith(KEY_OF[alg])).kid } },
    };
  }

  function client({ id, secret }, more = {}) {
    return {
      client_id: id,
      client_secret: secret,
      redirect_uris: [],
      response_types: [],
      grant_types: ['client_credentials', USER_GRANT, EXCHANGE_GRANT],
      ...more,
    };
  }

  function build(issuer) {
    const provider = new Provider(issuer, {
      adapter: Adapter,
      jwks: { keys },
      clients: [
        client(CLIENT),
        client(ODD_CLIENT),
        client(POST_CLIENT, { token_endpoint_auth_method: 'client_secret_post' }),
        client(KEY_CLIENT, {
          token_endpoint_auth_method: 'private_key_jwt',
          jwks: { keys: [KEY_CLIENT_JWK] },
        }),
      ],
      scopes: SCOPES,
      findAccount: async (_ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
      features: {
        devInteractions: { enabled: false },
        clientCredentials: { enabled: true },
        introspection: { enabled: true, allowedPolicy: async () => true },
        resourceIndicators: {
          enabled: true,
          getResourceServerInfo: async (_ctx, resource) => resourceServer(resource),
        },
      },
      formats: {
        customizers: {
          // As a tenant could configure: another audience, `typ` or claims.
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
        // Introspection needs the grant.
        const grant = new provider.Grant({ accountId: sub, clientId: ctx.oidc.client.clientId });
        grant.addResourceScope(resource, scope ?? '');
        const token = new provider.AccessToken({
          client: ctx.oidc.client,
          accountId: sub,
          gty: 'test_user',
          grantId: await grant.save(),
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
    provider.registerGrantType(
      EXCHANGE_GRANT,
      async (ctx) => {
        const { subject_token, subject_token_type, resource, scope } = ctx.oidc.params;
        if (subject_token_type !== ACCESS_TOKEN) throw new errors.InvalidRequest('subject_token_type');
        let subject;
        try {
          subject = await jwtVerify(subject_token ?? '', createLocalJWKSet({ keys: publicKeys() }), { issuer });
        } catch {
          // RFC 8693 §2.2.2.
          throw new errors.InvalidRequest('the subject token is invalid');
        }
        const accountId = subject.payload.sub;
        if (accountId.startsWith('banned')) throw new errors.AccessDenied();
        const token = new provider.AccessToken({
          client: ctx.oidc.client,
          accountId,
          gty: 'token_exchange',
          grantId: `grant-${accountId}`,
          scope,
        });
        token.resourceServer = new provider.ResourceServer(resource, resourceServer(resource));
        ctx.body = {
          access_token: await token.save(),
          issued_token_type: ACCESS_TOKEN,
          token_type: 'Bearer',
          expires_in: token.expiration,
          scope,
        };
      },
      ['subject_token', 'subject_token_type', 'requested_token_type', 'resource', 'scope', 'audience'],
    );
    return provider.callback();
  }

  let generation = 1;
  let keys = firstKeys;
  let handle;
  let mode = 'ok';
  const counts = new Counter();
  const latch = new Latch();

  const isKeys = (url) => url.startsWith('/jwks');
  const isDiscovery = (url) => url.includes('/.well-known/');

  /** Misbehaves according to `mode`; true if it has responded. */
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
        await latch.wait(res);
        return false;
      default:
        return false;
    }
  }

  const server = http.createServer(async (req, res) => {
    if (isKeys(req.url)) counts.add('jwks');
    else if (isDiscovery(req.url)) counts.add('discovery');
    else if (req.url === '/token') counts.add('token');
    else if (req.url === '/token/introspection') counts.add('introspection');
    else counts.add('other');
    if (!(await misbehave(req, res))) handle(req, res);
  });
  const outages = new Outages(server);
  const port = await instance.listen(server);
  const issuer = `http://127.0.0.1:${port}${options.trailingSlash ? '/' : ''}`;
  handle = build(issuer);

  /** A token from the provider's own token endpoint, even while the server is down. */
  async function token({ alg = 'RS256', sub, ...rest }) {
    const params = { resource: `urn:hawkgate:${alg}`, ...rest };
    if (sub === undefined) params.grant_type = 'client_credentials';
    else Object.assign(params, { grant_type: USER_GRANT, sub });
    if (params.claims) params.claims = JSON.stringify(params.claims);
    // A separate listener, so that tokens can be issued while the provider is down.
    const internal = http.createServer((req, res) => {
      req.headers.host = `127.0.0.1:${port}`;
      handle(req, res);
    });
    const internalPort = await listen(internal);
    try {
      const response = await fetch(`http://127.0.0.1:${internalPort}/token`, {
        method: 'POST',
        headers: {
          authorization: `Basic ${Buffer.from(`${CLIENT.id}:${CLIENT.secret}`).toString('base64')}`,
          connection: 'close',
        },
        body: new URLSearchParams(params),
      });
      const body = await response.json();
      if (!response.ok) throw new Error(`token endpoint: ${response.status} ${JSON.stringify(body)}`);
      return body;
    } finally {
      internal.closeAllConnections();
      internal.close();
    }
  }

  const controlPort = await instance.control({
    async rotate() {
      generation += 1;
      keys = await newKeys(generation);
      handle = build(issuer);
      return { kids: keys.map((key) => key.kid) };
    },
    down: () => outages.begin(),
    up: () => outages.end(port),
    mode({ mode: next }) {
      mode = next;
      return { released: latch.release() };
    },
    counts: () => counts.counts,
    untilWaiting: ({ count }) => latch.until(count),
    token,
    /** Revokes all opaque tokens issued so far. */
    revoke() {
      for (const name of ['AccessToken', 'ClientCredentials']) stores.get(name)?.clear();
    },
  });
  if (options.down) await outages.begin();

  const clients = { client: CLIENT, oddClient: ODD_CLIENT, postClient: POST_CLIENT, keyClient: KEY_CLIENT };
  return { port, control: controlPort, issuer, ...clients, jwks: `http://127.0.0.1:${port}/jwks` };
}
