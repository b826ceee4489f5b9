// The OpenID-certified oidc-provider as the identity provider of web applications: a sign-in form for
// two users, authorization code with PKCE, rotating refresh tokens, JWT access tokens, RP-initiated and
// back-channel logout. Callbacks have `iss`.
//
// Options: {"accessTokenTtl": seconds, "idTokenTtl": seconds, "keepRefreshTokens": bool}
// Users: `ada` and `grace`; the password is the name and "-password".
//
// Control: client (registers one), user, ttl, signIn (what a browser does between the authorization
// request and the callback), token (a user's access token), sid, logoutToken, endSession, revoke,
// rotate, mode, release, untilWaiting, counts, issued, tamper, tokenResponse, metadata.

import crypto from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import { decodeJwt, decodeProtectedHeader, exportJWK, generateKeyPair, importJWK, SignJWT } from 'jose';
import Provider from 'oidc-provider';
import { Counter, json, Latch, readBody } from './lib.js';
import { UserAgent } from './user-agent.js';

const RESOURCE = 'urn:hawkgate:application';
const SCOPES = 'read write';
const LOGOUT_EVENT = 'http://schemas.openid.net/event/backchannel-logout';

async function newKey(kid) {
  const { privateKey } = await generateKeyPair('RS256', { extractable: true, modulusLength: 2048 });
  return { ...(await exportJWK(privateKey)), kid, use: 'sig', alg: 'RS256' };
}

// Shared by all instances until they rotate: generating an RSA key is slow.
const firstKey = await newKey('rsa-1');
const foreignKey = await newKey('rsa-1');

/** `members` with those that `changes` names replaced, or deleted if they are null. */
function changed(members, changes) {
  return Object.fromEntries(Object.entries({ ...members, ...changes }).filter(([, value]) => value !== null));
}

const escape = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

/** Posts to hawkgate, whichever name its URL has and whichever certificate it presents. */
function postToLoopback(url, { method, headers, body }) {
  const { protocol, port, pathname, search, host } = new URL(url);
  const request = { method, host: '127.0.0.1', port, path: pathname + search, rejectUnauthorized: false };
  return new Promise((resolve, reject) => {
    const sent = (protocol === 'https:' ? https : http).request(
      { ...request, headers: { ...Object.fromEntries(headers), host } },
      async (res) => resolve({ status: res.statusCode, headers: res.headers, text: String(await readBody(res)) }),
    );
    sent.on('error', reject);
    sent.end(String(body));
  });
}

/** Starts one instance; resolves to the facts that tests need. */
export async function start(options, instance) {
  const users = new Map();
  for (const [sub, name] of [['ada', 'Ada Lovelace'], ['grace', 'Grace Hopper']]) {
    users.set(sub, { claims: { name, email: `${sub}@example.com` }, tokenClaims: {} });
  }
  const ttl = { accessToken: options.accessTokenTtl ?? 3600, idToken: options.idTokenTtl ?? 3600 };

  const stores = new Map();
  const store = (name) => {
    if (!stores.has(name)) stores.set(name, new Map());
    return stores.get(name);
  };
  class Adapter {
    constructor(name) {
      this.store = store(name);
    }
    async upsert(id, payload) {
      this.store.set(id, payload);
    }
    async find(id) {
      return this.store.get(id);
    }
    async findByUid(uid) {
      return [...this.store.values()].find((payload) => payload.uid === uid);
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

  const server = http.createServer();
  const port = await instance.listen(server);
  const issuer = `http://127.0.0.1:${port}`;
  const counts = new Counter();
  const latch = new Latch();
  const modes = {};
  const issued = [];
  const changes = { idToken: undefined, tokenResponse: {}, metadata: {} };
  let key = firstKey;
  let generation = 1;
  let provider;
  let handle;

  function build() {
    provider = new Provider(issuer, {
      adapter: Adapter,
      jwks: { keys: [key] },
      scopes: ['openid', 'offline_access', ...SCOPES.split(' ')],
      claims: { profile: ['name'], email: ['email'] },
      // `name` and `email` in the ID token, as most providers do, not only at the userinfo endpoint.
      conformIdTokenClaims: false,
      ttl: { IdToken: () => ttl.idToken },
      findAccount: async (_ctx, id) =>
        users.has(id) ? { accountId: id, claims: () => ({ sub: id, ...users.get(id).claims }) } : undefined,
      interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
      // By default only after `prompt=consent`, which Auth0 and Keycloak do not require.
      issueRefreshToken: (_ctx, client) => client.grantTypeAllowed('refresh_token'),
      rotateRefreshToken: !options.keepRefreshTokens,
      extraTokenClaims: (_ctx, token) => users.get(token.accountId)?.tokenClaims,
      fetch: postToLoopback,
      features: {
        devInteractions: { enabled: false },
        revocation: { enabled: true },
        backchannelLogout: { enabled: true },
        rpInitiatedLogout: { enabled: true, logoutSource: logoutPage, postLogoutSuccessSource: signedOutPage },
        resourceIndicators: {
          enabled: true,
          defaultResource: () => RESOURCE,
          useGrantedResource: () => true,
          getResourceServerInfo: async (_ctx, resource) => ({
            scope: SCOPES,
            audience: resource,
            accessTokenTTL: ttl.accessToken,
            accessTokenFormat: 'jwt',
            jwt: { sign: { alg: 'RS256' } },
          }),
        },
      },
    });
    provider.on('server_error', (_ctx, error) => console.error(error));
    provider.on('grant.success', (ctx) => counts.add(`${ctx.oidc.params.grant_type} granted`));
    provider.on('grant.error', (ctx) => counts.add(`${ctx.oidc.params?.grant_type} refused`));
    provider.on('backchannel.success', () => counts.add('logout token accepted'));
    provider.on('backchannel.error', (_ctx, error) => {
      counts.add('logout token refused');
      console.error(error);
    });
    provider.use(async (ctx, next) => {
      await next();
      if (ctx.oidc?.route === 'discovery') ctx.body = changed(ctx.body, changes.metadata);
      if (ctx.oidc?.route !== 'token' || !ctx.body?.access_token) return;
      if (changes.idToken && ctx.body.id_token) ctx.body.id_token = await resigned(ctx.body.id_token);
      ctx.body = changed(ctx.body, changes.tokenResponse);
      issued.push(...['access_token', 'id_token', 'refresh_token'].map((name) => ctx.body[name]).filter(Boolean));
    });
    handle = provider.callback();
  }
  build();

  /** The same ID token with other claims, signed by the provider's own key. */
  async function resigned(token) {
    const { alg, kid } = decodeProtectedHeader(token);
    const claims = changed(decodeJwt(token), changes.idToken);
    return new SignJWT(claims).setProtectedHeader({ alg, kid }).sign(await importJWK(key, alg));
  }

  // Pages --------------------------------------------------------------------------------

  const page = (title, content) =>
    `<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>${title}</title><h1>${title}</h1>${content}</html>`;

  function html(res, status, title, content) {
    res.writeHead(status, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' });
    res.end(page(title, content));
  }

  async function logoutPage(ctx, form) {
    const button = '<button form="op.logoutForm" name="logout" value="yes">Sign out</button>';
    ctx.body = page('Sign out of the identity provider?', `${form}${button}`);
  }

  async function signedOutPage(ctx) {
    ctx.body = page('Signed out at the identity provider', '');
  }

  const SIGN_IN = (note) => `<p>${escape(note)}</p><form method="post">
    <label>User <input name="user" autocomplete="username"></label>
    <label>Password <input name="password" type="password"></label>
    <button name="submit" value="sign-in">Sign in</button>
    <button name="submit" value="deny">Cancel</button></form>`;

  async function interact(req, res) {
    const { prompt, params, session } = await provider.interactionDetails(req, res);
    if (prompt.name === 'login') {
      if (req.method === 'GET') return html(res, 200, 'Sign in', SIGN_IN(`to ${params.client_id}`));
      const form = new URLSearchParams(String(await readBody(req)));
      if (form.get('submit') === 'deny') {
        const error = { error: 'access_denied', error_description: 'The user <i>cancelled</i>' };
        return provider.interactionFinished(req, res, error);
      }
      const user = form.get('user');
      if (!users.has(user) || form.get('password') !== `${user}-password`) {
        return html(res, 401, 'Sign in', SIGN_IN('Wrong user or password'));
      }
      return provider.interactionFinished(req, res, { login: { accountId: user } });
    }
    const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope(`openid profile email offline_access ${SCOPES}`);
    for (const resource of [params.resource ?? RESOURCE].flat()) grant.addResourceScope(resource, SCOPES);
    return provider.interactionFinished(req, res, { consent: { grantId: await grant.save() } });
  }

  // Requests -----------------------------------------------------------------------------

  /** True if it has responded. */
  async function misbehave(endpoint, req, res) {
    switch (modes[endpoint]) {
      case 'error':
        json(res, 500, { error: 'server_error' });
        return true;
      case 'disconnect':
        req.socket.destroy();
        return true;
      case 'slow':
        await latch.wait(res);
        return false;
      // The provider does what was asked, but the response is lost.
      case 'lost':
        res.end = () => res.socket.destroy();
        return false;
      default:
        return false;
    }
  }

  const ENDPOINTS = {
    '/.well-known/openid-configuration': 'discovery',
    '/auth': 'authorization',
    '/jwks': 'jwks',
    '/token': 'token',
    '/token/revocation': 'revocation',
  };

  server.on('request', async (req, res) => {
    const path = req.url.split('?')[0];
    const endpoint = ENDPOINTS[path] ?? 'other';
    counts.add(endpoint);
    try {
      if (path.startsWith('/interaction/')) return await interact(req, res);
      if (await misbehave(endpoint, req, res)) return undefined;
      return handle(req, res);
    } catch (error) {
      console.error(error);
      return res.headersSent ? res.destroy() : json(res, 500, { error: 'server_error' });
    }
  });

  // Control ------------------------------------------------------------------------------

  const agents = new Map();
  const agent = (name) => {
    if (!agents.has(name)) agents.set(name, new UserAgent(issuer));
    return agents.get(name);
  };
  const sessionsOf = (user) => [...store('Session').values()].filter((payload) => payload.accountId === user);

  const controlPort = await instance.control({
    /** Registers a client, or replaces it: `{id, secret?, origin, prefix, ...metadata}`. */
    client({ id, secret, origin, prefix = '/oauth2/', ...metadata }) {
      store('Client').set(id, {
        client_id: id,
        ...(secret ? { client_secret: secret } : { token_endpoint_auth_method: 'none' }),
        grant_types: ['authorization_code', 'refresh_token'],
        redirect_uris: [`${origin}${prefix}callback`],
        post_logout_redirect_uris: [`${origin}${prefix}logout`],
        backchannel_logout_uri: `${origin}${prefix}backchannel-logout`,
        backchannel_logout_session_required: true,
        ...metadata,
      });
    },
    /** Adds to a user's claims: `{sub, claims, tokenClaims}`; the latter in access tokens. */
    user({ sub, claims, tokenClaims }) {
      const user = users.get(sub) ?? { claims: {}, tokenClaims: {} };
      users.set(sub, { claims: { ...user.claims, ...claims }, tokenClaims: { ...user.tokenClaims, ...tokenClaims } });
    },
    /** Lifetimes, in seconds, of the tokens issued from now on: `{accessToken, idToken}`. */
    ttl: (next) => Object.assign(ttl, next),
    /** Requests `url` and signs in; `agent` keeps its cookies. Responds with the callback's location. */
    async signIn({ url, user = 'ada', agent: name = crypto.randomUUID(), deny }) {
      let here = await agent(name).follow(url);
      if (here.url?.includes('/interaction/')) {
        const submit = deny ? 'deny' : 'sign-in';
        here = await agent(name).submit(here.url, { user, password: `${user}-password`, submit });
      }
      return here;
    },
    /** An access token, with which a page calls the application's API by itself. */
    async token({ user = 'ada', client: id, scope = SCOPES, resource = RESOURCE }) {
      const client = await provider.Client.find(id);
      const grant = new provider.Grant({ accountId: user, clientId: id });
      grant.addResourceScope(resource, scope);
      const token = new provider.AccessToken({ client, accountId: user, gty: 'test', grantId: await grant.save(), scope });
      token.resourceServer = new provider.ResourceServer(resource, {
        scope,
        audience: resource,
        accessTokenTTL: ttl.accessToken,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'RS256' } },
      });
      return { token: await token.save() };
    },
    /** The `sid` of each of a user's sessions with a client. */
    sids: ({ user, client }) => ({
      sids: sessionsOf(user).map((session) => session.authorizations?.[client]?.sid).filter(Boolean),
    }),
    /** A logout token with changed claims (null deletes) and header; `foreign` has another key. */
    async logoutToken({ client, claims, header, foreign }) {
      const now = Math.floor(Date.now() / 1000);
      const usual = {
        iss: issuer,
        aud: client,
        iat: now,
        exp: now + 120,
        jti: crypto.randomUUID(),
        events: { [LOGOUT_EVENT]: {} },
      };
      const signed = new SignJWT(changed(usual, claims)).setProtectedHeader(
        changed({ alg: 'RS256', kid: key.kid, typ: 'logout+jwt' }, header),
      );
      return { token: await signed.sign(await importJWK(foreign ? foreignKey : key, 'RS256')) };
    },
    /** Ends a user's sessions, as an administrator does, and sends logout tokens to the client. */
    async endSessions({ user, client: id }) {
      const client = await provider.Client.find(id);
      for (const session of sessionsOf(user)) {
        store('Session').delete(session.jti);
        const { sid } = session.authorizations?.[id] ?? {};
        if (sid) await client.backchannelLogout(user, sid);
      }
    },
    /** Revokes a user's grants: refresh tokens are refused from now on. */
    revoke({ user }) {
      for (const name of ['Grant', 'RefreshToken', 'AccessToken']) {
        for (const [id, payload] of store(name)) if (payload.accountId === user) store(name).delete(id);
      }
    },
    /** A new key; the old one leaves the key set. */
    async rotate() {
      generation += 1;
      key = await newKey(`rsa-${generation}`);
      build();
    },
    /** How an endpoint (discovery, authorization, jwks, token, revocation) behaves: ok, error, disconnect, slow, lost. */
    mode({ endpoint, mode }) {
      modes[endpoint] = mode;
      return { released: latch.release() };
    },
    release: () => ({ released: latch.release() }),
    untilWaiting: ({ count }) => latch.until(count),
    counts: () => counts.counts,
    /** Every token that the token endpoint issued, for leak tests. */
    issued: () => ({ tokens: issued }),
    /** Claims of the ID tokens issued from now on. */
    tamper({ claims }) {
      changes.idToken = claims;
    },
    /** Members of the token responses from now on. */
    tokenResponse(members) {
      changes.tokenResponse = members;
    },
    /** Members of the discovery document from now on. */
    metadata(members) {
      changes.metadata = members;
    },
  });

  return { port, control: controlPort, issuer, resource: RESOURCE, jwks: `${issuer}/jwks` };
}
