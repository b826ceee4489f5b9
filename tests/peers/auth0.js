// Auth0's extensions to OpenID Connect: password-realm and MFA grants, the MFA API, users in the
// Management API, Token Vault.
//
// The certified oidc-provider implements client authentication, client credentials, access tokens
// and their lookup, and refresh tokens with rotation. User directories, Auth0's own grant types,
// `/mfa/…` and `/api/v2/users/…` are imitated, following Auth0's documentation. Token Vault decodes
// the subject token without verifying it.
//
// Control: user, identities, confirm, decline, fail, revoke, counts, secrets, down, up.

import crypto from 'node:crypto';
import http from 'node:http';
import Provider from 'oidc-provider';
import { Counter, json, Outages, readBody } from './lib.js';

const AUTH0 = 'http://auth0.com/oauth/grant-type/';
const GRANTS = {
  password: 'password',
  realm: `${AUTH0}password-realm`,
  otp: `${AUTH0}mfa-otp`,
  oob: `${AUTH0}mfa-oob`,
  recovery: `${AUTH0}mfa-recovery-code`,
  vault: 'urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token',
};
const CLIENTS = {
  basic: { id: 'hawkgate-basic', secret: 'tests-only-basic: secret+%', method: 'client_secret_basic' },
  post: { id: 'hawkgate-post', secret: 'tests-only-post-secret', method: 'client_secret_post' },
};
const MANAGEMENT = ['read:users', 'read:user_idp_tokens'];
const API = ['read', 'write'];

/** Starts one instance; resolves to the facts that tests need. */
export async function start(options, instance) {
  const users = new Map(); // name → { password, realm, otp, push, sms, recovery }
  const profiles = new Map(); // user id → identities
  const steps = new Map(); // mfa_token → { name, params, oob }
  const secrets = new Set();
  const failures = new Map(); // endpoint → [{ status, headers, body }]
  const counts = new Counter();
  const revoked = new Set();

  const secret = (prefix) => {
    const value = `${prefix}-${crypto.randomBytes(16).toString('hex')}`;
    secrets.add(value);
    return value;
  };

  function refuse(ctx, status, error, more = {}) {
    ctx.status = status;
    ctx.body = { error, error_description: 'a description', ...more };
  }

  function build(issuer) {
    const provider = new Provider(issuer, {
      routes: { token: '/oauth/token' },
      clients: Object.values(CLIENTS).map(({ id, secret, method }) => ({
        client_id: id,
        client_secret: secret,
        token_endpoint_auth_method: method,
        redirect_uris: [],
        response_types: [],
        grant_types: ['client_credentials', 'refresh_token', ...Object.values(GRANTS)],
      })),
      scopes: ['openid', 'offline_access', ...API, ...MANAGEMENT],
      findAccount: async (_ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
      rotateRefreshToken: true,
      ttl: { RefreshToken: 3600 },
      features: {
        devInteractions: { enabled: false },
        clientCredentials: { enabled: true },
        resourceIndicators: {
          enabled: true,
          getResourceServerInfo: async (_ctx, resource) => resourceServer(resource),
          useGrantedResource: async () => true,
        },
      },
    });
    provider.on('server_error', (_ctx, error) => console.error(error));
    const grant = (name, handler, params) =>
      provider.registerGrantType(GRANTS[name], (ctx) => handler(ctx, ctx.oidc.params), params);
    const first = ['username', 'password', 'realm', 'audience', 'scope', 'resource'];
    const second = ['mfa_token', 'otp', 'oob_code', 'binding_code', 'recovery_code'];
    grant('password', password, first);
    grant('realm', password, first);
    grant('otp', otp, second);
    grant('oob', oob, second);
    grant('recovery', recovery, second);
    grant('vault', vault, ['subject_token', 'subject_token_type', 'requested_token_type', 'connection']);
    return provider;

    function resourceServer(resource) {
      const own = resource === `${issuer}/api/v2/`;
      return { scope: (own ? MANAGEMENT : API).join(' '), accessTokenTTL: 86400, accessTokenFormat: 'opaque' };
    }

    /** Issues a token through the provider. */
    async function issue(ctx, name, { scope, audience }, more = {}) {
      const { client } = ctx.oidc;
      const grant = new provider.Grant({ accountId: name, clientId: client.clientId });
      const scopes = (scope ?? '').split(' ');
      const api = scopes.filter((s) => API.includes(s)).join(' ');
      grant.addOIDCScope(scopes.filter((s) => !API.includes(s)).join(' '));
      grant.addResourceScope(audience, api);
      const common = { client, accountId: name, grantId: await grant.save(), gty: 'password', scope };
      const token = new provider.AccessToken(common);
      token.resourceServer = new provider.ResourceServer(audience, resourceServer(audience));
      const body = { access_token: await token.save(), token_type: 'Bearer', expires_in: token.expiration, scope, ...more };
      if (scopes.includes('offline_access')) {
        const refresh = new provider.RefreshToken({ ...common, resource: audience, rotations: 0 });
        body.refresh_token = await refresh.save();
      }
      ctx.body = body;
    }

    async function password(ctx, params) {
      const user = users.get(params.username);
      const realm = params.grant_type === GRANTS.realm ? params.realm : undefined;
      if (!user || user.password !== params.password || user.realm !== realm) {
        return refuse(ctx, 403, 'invalid_grant');
      }
      if (user.error) return refuse(ctx, user.error.status, user.error.code);
      if (!(user.otp || user.push || user.sms || user.recovery)) return issue(ctx, params.username, params);
      const token = secret('mfa-token');
      steps.set(token, { name: params.username, params });
      return refuse(ctx, 403, 'mfa_required', { mfa_token: token });
    }

    async function otp(ctx, { mfa_token: token, otp: code }) {
      const step = steps.get(token);
      if (!step) return refuse(ctx, 401, 'expired_token');
      const { otp: expected } = users.get(step.name);
      if (!expected || code !== expected) return refuse(ctx, 403, 'invalid_grant');
      return issue(ctx, step.name, step.params);
    }

    async function oob(ctx, { mfa_token: token, oob_code: code, binding_code: bound }) {
      const step = steps.get(token);
      if (!step || step.oob !== code) return refuse(ctx, 401, 'expired_token');
      const user = users.get(step.name);
      if (user.sms && bound !== user.sms) return refuse(ctx, 403, 'invalid_grant');
      if (user.push && user.push !== 'confirmed') {
        return user.push === 'declined'
          ? refuse(ctx, 403, 'invalid_grant')
          : refuse(ctx, 400, 'authorization_pending');
      }
      return issue(ctx, step.name, step.params);
    }

    async function recovery(ctx, { mfa_token: token, recovery_code: code }) {
      const step = steps.get(token);
      if (!step) return refuse(ctx, 401, 'expired_token');
      const user = users.get(step.name);
      if (!user.recovery || code !== user.recovery) return refuse(ctx, 403, 'invalid_grant');
      user.recovery = crypto.randomBytes(12).toString('hex').toUpperCase();
      secrets.add(user.recovery);
      return issue(ctx, step.name, step.params, { recovery_code: user.recovery });
    }

    async function vault(ctx, params) {
      const expected = {
        subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
        requested_token_type: 'http://auth0.com/oauth/token-type/federated-connection-access-token',
      };
      for (const [name, value] of Object.entries(expected)) {
        if (params[name] !== value) return refuse(ctx, 400, 'invalid_request');
      }
      const { sub } = JSON.parse(Buffer.from(params.subject_token.split('.')[1], 'base64url'));
      const identity = profiles.get(sub)?.find(({ connection }) => connection === params.connection);
      if (!identity) return refuse(ctx, 401, 'federated_connection_refresh_token_not_found');
      ctx.body = {
        access_token: secret('vaulted'),
        issued_token_type: expected.requested_token_type,
        token_type: 'Bearer',
        expires_in: 3600,
        scope: 'openid',
      };
    }
  }

  /** Records the secrets in a response of oidc-provider. */
  function recordSecrets(body) {
    for (const name of ['access_token', 'refresh_token', 'id_token', 'mfa_token']) {
      if (body[name]) secrets.add(body[name]);
    }
  }

  /** Auth0's parameter `audience` is `resource` in RFC 8707. */
  async function token(req, res) {
    const form = new URLSearchParams((await readBody(req)).toString());
    const grant = (form.get('grant_type') ?? '').split(/[/:]/).at(-1);
    const from = req.headers['auth0-forwarded-for'];
    if (form.has('audience')) form.set('resource', form.get('audience'));
    const body = Object.fromEntries(form);
    req.body = body;
    const end = res.end.bind(res);
    res.end = (chunk, ...rest) => {
      counts.add(`${grant} ${res.statusCode}${from ? ` for ${from}` : ''}`);
      if (chunk) recordSecrets(JSON.parse(chunk.toString()));
      return end(chunk, ...rest);
    };
    handle(req, res);
  }

  async function user(req, res, id) {
    const bearer = (req.headers.authorization ?? '').replace(/^Bearer /, '');
    const known = revoked.has(bearer) ? undefined : await provider.ClientCredentials.find(bearer);
    if (!known || known.aud !== `${issuer}/api/v2/`) {
      return json(res, 401, { statusCode: 401, error: 'Unauthorized', message: 'Invalid token' });
    }
    const identities = profiles.get(id);
    if (!identities) return json(res, 404, { statusCode: 404, errorCode: 'inexistent_user' });
    return json(res, 200, { identities });
  }

  function authenticators(req, res) {
    const step = steps.get((req.headers.authorization ?? '').replace(/^Bearer /, ''));
    if (!step) return json(res, 401, { error: 'invalid_grant' });
    const { otp, push, sms, recovery } = users.get(step.name);
    const all = [];
    if (recovery) all.push({ id: 'recovery-code|1', authenticator_type: 'recovery-code', active: true });
    if (otp) all.push({ id: 'totp|1', authenticator_type: 'otp', active: true });
    if (push) all.push({ id: 'push|1', authenticator_type: 'oob', oob_channel: 'auth0', active: true });
    if (sms) all.push({ id: 'sms|1', authenticator_type: 'oob', oob_channel: 'sms', active: true });
    return json(res, 200, all);
  }

  async function challenge(req, res) {
    const body = JSON.parse((await readBody(req)).toString());
    const client = Object.values(CLIENTS).find(({ id }) => id === body.client_id);
    if (!client || client.secret !== body.client_secret) return json(res, 401, { error: 'invalid_client' });
    const step = steps.get(body.mfa_token);
    if (!step) return json(res, 401, { error: 'expired_token' });
    if (body.challenge_type !== 'oob') return json(res, 400, { error: 'unsupported_challenge_type' });
    step.oob = secret('oob');
    const binding = users.get(step.name).sms ? { binding_method: 'prompt' } : {};
    return json(res, 200, { challenge_type: 'oob', oob_code: step.oob, ...binding });
  }

  async function serve(req, res) {
    const { pathname, search } = new URL(req.url, 'http://x');
    const endpoint = pathname.startsWith('/api/v2/users/') ? '/api/v2/users' : pathname;
    const failure = failures.get(endpoint)?.shift();
    if (failure) {
      counts.add(`${endpoint} ${failure.status}`);
      return json(res, failure.status, failure.body ?? {}, failure.headers ?? {});
    }
    if (endpoint === '/oauth/token') return token(req, res);
    res.on('finish', () => counts.add(`${endpoint} ${res.statusCode}`));
    if (endpoint === '/mfa/authenticators') return authenticators(req, res);
    if (endpoint === '/mfa/challenge') return challenge(req, res);
    if (endpoint === '/api/v2/users' && search === '?fields=identities&include_fields=true') {
      return user(req, res, decodeURIComponent(pathname.slice('/api/v2/users/'.length)));
    }
    return json(res, 404, { error: 'not_found' });
  }

  const server = http.createServer((req, res) => {
    serve(req, res).catch((error) => {
      console.error(error);
      json(res, 500, { error: 'server_error' });
    });
  });
  const outages = new Outages(server);
  const port = await instance.listen(server);
  const issuer = `http://127.0.0.1:${port}`;
  const provider = build(issuer);
  const handle = provider.callback();

  const controlPort = await instance.control({
    /** Adds a user with a password and second factors. */
    user({ name, ...rest }) {
      users.set(name, rest);
      secrets.add(rest.password);
      if (rest.recovery) secrets.add(rest.recovery);
    },
    identities({ id, identities }) {
      profiles.set(id, identities);
      for (const { access_token: token } of identities) if (token) secrets.add(token);
    },
    confirm({ name }) {
      users.get(name).push = 'confirmed';
    },
    decline({ name }) {
      users.get(name).push = 'declined';
    },
    /** Sets the next responses of an endpoint. */
    fail({ endpoint, responses }) {
      failures.set(endpoint, responses);
    },
    /** Revokes all tokens for the Management API. */
    revoke() {
      for (const value of secrets) revoked.add(value);
    },
    counts: () => counts.counts,
    secrets: () => ({ secrets: [...secrets, ...Object.values(CLIENTS).map((c) => c.secret)] }),
    down: () => outages.begin(),
    up: () => outages.end(port),
  });

  return { port, control: controlPort, issuer, basicClient: CLIENTS.basic, postClient: CLIENTS.post };
}
