// The OpenID-certified oidc-provider with the features that registration and sign-in need: dynamic
// registration and its management (RFC 7591, RFC 7592), authorization code with PKCE, device flow,
// rotating refresh tokens, revocation.
//
// Options: {"initialAccessToken": "…", "ttl": seconds}
// Control: browse (a browser with cookies, which follows redirects until they leave the provider),
// approve (a device code), tamper (claims of the next ID tokens), metadata (members of the
// discovery document), registration and tokenEndpoint (how those endpoints behave), untilWaiting,
// counts, client.

import http from 'node:http';
import { exportJWK, generateKeyPair, SignJWT, decodeJwt, decodeProtectedHeader, importJWK } from 'jose';
import Provider from 'oidc-provider';
import { Counter, json, Latch } from './lib.js';
import { hiddenField, UserAgent } from './user-agent.js';

const { privateKey } = await generateKeyPair('RS256', { extractable: true, modulusLength: 2048 });
const jwk = { ...(await exportJWK(privateKey)), kid: 'rsa-1', use: 'sig', alg: 'RS256' };

/** Starts one instance; resolves to the facts that tests need. */
export async function start(options, instance) {
  const server = http.createServer();
  const port = await instance.listen(server);
  const issuer = `http://127.0.0.1:${port}`;

  const provider = new Provider(issuer, {
    jwks: { keys: [jwk] },
    clients: [
      {
        client_id: 'shell',
        application_type: 'native',
        token_endpoint_auth_method: 'none',
        redirect_uris: ['http://127.0.0.1/callback'],
        grant_types: [
          'authorization_code',
          'refresh_token',
          'urn:ietf:params:oauth:grant-type:device_code',
        ],
      },
    ],
    scopes: ['openid', 'offline_access', 'read'],
    ttl: { AccessToken: options.ttl ?? 600 },
    findAccount: async (_ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    rotateRefreshToken: true,
    features: {
      devInteractions: { enabled: false },
      deviceFlow: { enabled: true },
      revocation: { enabled: true },
      clientCredentials: { enabled: true },
      registration: { enabled: true, initialAccessToken: options.initialAccessToken },
      registrationManagement: { enabled: true, rotateRegistrationAccessToken: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: async () => ({ scope: 'read', accessTokenFormat: 'jwt' }),
      },
    },
  });
  provider.on('server_error', (_ctx, error) => console.error(error));

  let user = 'user-1';
  let tampered;
  let metadata = {};
  let registration = 'ok';
  let tokenEndpoint = 'ok';
  const counts = new Counter();
  const latch = new Latch();

  /** The same ID token with other claims, signed by the provider's own key. */
  async function forged(token) {
    const { alg, kid } = decodeProtectedHeader(token);
    const claims = { ...decodeJwt(token), ...tampered };
    for (const [name, value] of Object.entries(tampered)) if (value === null) delete claims[name];
    return new SignJWT(claims).setProtectedHeader({ alg, kid }).sign(await importJWK(jwk, 'RS256'));
  }

  provider.use(async (ctx, next) => {
    await next();
    if (ctx.oidc?.route === 'discovery') Object.assign(ctx.body, metadata);
    // Lets tests poll quickly; the default of RFC 8628 is five seconds.
    if (ctx.oidc?.route === 'device_authorization' && ctx.body.device_code) ctx.body.interval = 1;
    if (tampered && ctx.body?.id_token) ctx.body.id_token = await forged(ctx.body.id_token);
  });

  /** Every visitor is `user` and consents to everything. */
  async function interact(req, res) {
    const { prompt, params, session } = await provider.interactionDetails(req, res);
    if (prompt.name === 'login') {
      return provider.interactionFinished(req, res, { login: { accountId: user } });
    }
    const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope('openid offline_access read');
    for (const resource of [params.resource ?? []].flat()) grant.addResourceScope(resource, 'read');
    return provider.interactionFinished(req, res, { consent: { grantId: await grant.save() } });
  }

  const callback = provider.callback();
  server.on('request', async (req, res) => {
    const path = req.url.split('?')[0];
    counts.add(`${req.method} ${path}`);
    if (path.startsWith('/interaction/')) return interact(req, res);
    if (path.startsWith('/reg')) {
      if (registration === 'stall') return latch.wait(res);
      // The client is created, but the response is lost.
      if (registration === 'lost') res.end = () => res.socket.destroy();
      if (registration === 'error') return json(res, 500, { error: 'server_error' });
    }
    if (path === '/token' && tokenEndpoint === 'error') return json(res, 500, {});
    return callback(req, res);
  });

  const controlPort = await instance.control({
    browse: ({ url, sub }) => {
      user = sub ?? 'user-1';
      return new UserAgent(issuer).follow(url);
    },
    async approve({ userCode, abort }) {
      const browser = new UserAgent(issuer);
      const form = await (await browser.fetch(`${issuer}/device`)).text();
      const fields = { xsrf: hiddenField(form, 'xsrf'), user_code: userCode };
      fields[abort ? 'abort' : 'confirm'] = 'yes';
      const response = await browser.submit(`${issuer}/device`, fields);
      return { status: response.status };
    },
    tamper: ({ claims }) => {
      tampered = claims;
    },
    metadata: (members) => {
      metadata = members;
    },
    registration({ mode }) {
      registration = mode;
      return { released: latch.release() };
    },
    tokenEndpoint: ({ mode }) => {
      tokenEndpoint = mode;
    },
    untilWaiting: ({ count }) => latch.until(count),
    counts: () => counts.counts,
    client: async ({ id }) => ({ client: (await provider.Client.find(id))?.metadata() ?? null }),
  });

  return { port, control: controlPort, issuer };
}
