// The OAuth2 provider of Taskcluster's web-server: authorization codes without PKCE or secret, an opaque
// token of 10 minutes, and the credentials of a permanent client in exchange for it.
//
// As web-server does, it responds 403 to a bad code, 501 to another grant type and 500 to a token that it
// does not know. Where web-server requires a session and shows a dialog in its UI, the page here asks
// who signs in.

import crypto from 'node:crypto';
import { json, readBody } from './lib.js';

const MINUTE = 60_000;
const PEOPLE = ['ada', 'grace'];
const newKey = () => crypto.randomBytes(33).toString('base64url');
const escape = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const sorted = (scopes) => [...scopes].sort().join(' ');

/** `clients` are the deployment's; `minted` gets all credentials issued; `now()` is in milliseconds. */
export class OAuthProvider {
  /** clientId: {redirectUris, scopes, lifetime} */
  registered = new Map();
  #codes = new Map();
  #tokens = new Map();
  constructor(clients, minted, now) {
    Object.assign(this, { clients, minted, now });
  }

  /** An opaque token, as after a sign-in. */
  token({ identity = 'github/1|test', client = 'tests', scopes = ['test:*'], lifetime = 86_400_000 }) {
    const token = newKey();
    const clientId = `${identity}/${client}-${crypto.randomBytes(3).toString('hex')}`;
    this.#tokens.set(token, { clientId, scopes, lifetime, expires: this.now() + 10 * MINUTE });
    return { token, clientId };
  }

  /** Responds to a request; false if the path is another's. */
  async respond(req, res) {
    switch (req.url.split('?')[0]) {
      case '/login/oauth/authorize':
        await this.#authorize(req, res);
        return true;
      case '/login/oauth/token':
        await this.#redeem(req, res);
        return true;
      case '/login/oauth/credentials':
        this.#credentials(req, res);
        return true;
      default:
        return false;
    }
  }

  async #authorize(req, res) {
    const query = new URL(req.url, 'http://x').searchParams;
    const client = this.registered.get(query.get('client_id'));
    const redirectUri = query.get('redirect_uri');
    // Never redirects to a URI that is not registered.
    if (!client || !client.redirectUris.includes(redirectUri)) {
      return json(res, 400, { code: 'InputError', message: 'unknown client or redirect_uri' });
    }
    const back = (members) => {
      const location = new URL(redirectUri);
      for (const [name, value] of Object.entries(members)) location.searchParams.set(name, value);
      if (query.has('state')) location.searchParams.set('state', query.get('state'));
      res.writeHead(302, { location: location.href });
      res.end();
    };
    if (query.get('response_type') !== 'code') return back({ error: 'unsupported_response_type' });
    if (sorted((query.get('scope') ?? '').split(' ')) !== sorted(client.scopes)) return back({ error: 'invalid_scope' });
    if (req.method !== 'POST') return this.#page(res, query.get('client_id'));
    const form = new URLSearchParams(String(await readBody(req)));
    const person = form.get('person');
    if (!PEOPLE.includes(person)) return back({ error: 'access_denied' });
    const code = newKey();
    this.#codes.set(code, { client: query.get('client_id'), redirectUri, person, expires: this.now() + 10 * MINUTE });
    return back({ code });
  }

  #page(res, client) {
    const buttons = PEOPLE.map((person) => `<button name="person" value="${person}">${person}</button>`).join('');
    res.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
    res.end(
      `<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Taskcluster</title><h1>Grant access to ${escape(client)}</h1>` +
        `<form method="post">${buttons}<button name="person" value="">Reject</button></form></html>`,
    );
  }

  async #redeem(req, res) {
    const form = new URLSearchParams(String(await readBody(req)));
    const failed = (status, error) => json(res, status, { error });
    if (req.method !== 'POST' || ![...form].length) return failed(500, 'server_error');
    if (form.get('grant_type') !== 'authorization_code') return failed(501, 'unsupported_grant_type');
    if (!form.get('code')) return failed(400, 'invalid_request');
    const code = this.#codes.get(form.get('code'));
    this.#codes.delete(form.get('code'));
    const valid =
      code && code.expires > this.now() && code.client === form.get('client_id') && code.redirectUri === form.get('redirect_uri');
    if (!valid) return failed(403, 'invalid_grant');
    const { scopes, lifetime } = this.registered.get(code.client);
    const { token } = this.token({ identity: `github/1|${code.person}`, client: code.client, scopes, lifetime });
    return json(res, 200, { access_token: token, token_type: 'Bearer' });
  }

  #credentials(req, res) {
    const failed = (body) => json(res, 500, body);
    const token = /^Bearer (.*)$/.exec(req.headers.authorization ?? '')?.[1];
    if (token === undefined) return failed({ code: 'ERR_INVALID_ARG_TYPE', name: 'TypeError' });
    const grant = this.#tokens.get(token);
    const { clients, minted } = this;
    if (!grant || grant.expires < this.now() || clients.get(grant.clientId)?.disabled) {
      return failed({ name: 'InputError', message: 'Could not generate credentials for this access token' });
    }
    if (!clients.get(grant.clientId)) {
      clients.set(grant.clientId, { accessToken: newKey(), scopes: grant.scopes });
      minted.push({ clientId: grant.clientId, accessToken: clients.get(grant.clientId).accessToken });
    }
    const credentials = { clientId: grant.clientId, accessToken: clients.get(grant.clientId).accessToken };
    return json(res, 200, { expires: new Date(this.now() + grant.lifetime - 30_000).toISOString(), credentials });
  }
}
