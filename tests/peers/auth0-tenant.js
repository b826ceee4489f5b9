// An imitation, after Auth0's documentation, of the parts of a tenant that dynamic client
// registration needs: settings, connections and client grants of the Management API, the
// registration endpoint with its switch and rate limit, and a token for the Management API.
//
// Options: {"open": bool, "limit": number of registrations that get a 429 first}
// Control: facts, refuse (registrations), fail (changes whose description contains a text)

import http from 'node:http';
import { json, readBody } from './lib.js';

const TOKEN = 'management-token-for-tests';
const MANAGER = { id: 'manager', secret: 'management-secret-for-tests' };

/** Starts one instance; resolves to the facts that tests need. */
export async function start(options, instance) {
  let open = options.open ?? false;
  let limit = options.limit ?? 0;
  let refuse = false;
  let failure;
  const connections = [
    { id: 'con_1', name: 'users', is_domain_connection: false, strategy: 'auth0' },
    { id: 'con_2', name: 'github', is_domain_connection: true, strategy: 'github' },
  ];
  const grants = [
    // A grant of one client for the same API, which is not the default grant.
    { id: 'cgr_0', client_id: 'other', audience: 'https://api.test/', scope: ['admin'] },
  ];
  const changes = [];
  const clients = [];

  const server = http.createServer(async (req, res) => {
    const url = new URL(req.url, issuer);
    const text = (await readBody(req)).toString();
    const method = req.method;
    if (url.pathname === '/.well-known/openid-configuration') {
      return json(res, 200, {
        issuer,
        authorization_endpoint: `${issuer}authorize`,
        token_endpoint: `${issuer}oauth/token`,
        jwks_uri: `${issuer}.well-known/jwks.json`,
        registration_endpoint: `${issuer}oidc/register`,
      });
    }
    if (url.pathname === '/oauth/token') {
      const form = new URLSearchParams(text);
      const good =
        form.get('grant_type') === 'client_credentials' &&
        form.get('client_id') === MANAGER.id &&
        form.get('client_secret') === MANAGER.secret &&
        form.get('audience') === `${issuer}api/v2/`;
      if (!good) return json(res, 401, { error: 'access_denied' });
      return json(res, 200, { access_token: TOKEN, token_type: 'Bearer', expires_in: 86400 });
    }
    if (url.pathname === '/oidc/register') return register(res, JSON.parse(text));
    if (!url.pathname.startsWith('/api/v2/')) return json(res, 404, {});
    if (req.headers.authorization !== `Bearer ${TOKEN}`) return json(res, 401, {});
    return manage(res, method, url, text ? JSON.parse(text) : undefined);
  });
  const port = await instance.listen(server);
  const issuer = `http://127.0.0.1:${port}/`;

  function register(res, metadata) {
    if (limit > 0) {
      limit -= 1;
      return json(res, 429, {}, { 'retry-after': '0', 'x-ratelimit-remaining': '0' });
    }
    changes.push('POST /oidc/register');
    if (!open) return json(res, 404, { error: 'not_found' });
    if (refuse || !metadata.redirect_uris?.length) {
      return json(res, 400, { error: 'invalid_client_metadata', error_description: 'redirect_uris' });
    }
    const client = {
      client_name: metadata.client_name,
      client_id: `client-${clients.length + 1}`,
      redirect_uris: metadata.redirect_uris,
      client_secret_expires_at: 0,
    };
    if (metadata.token_endpoint_auth_method !== 'none') client.client_secret = 'tenant-client-secret-1';
    clients.push(client);
    return json(res, 201, client);
  }

  function manage(res, method, url, body) {
    const path = url.pathname.slice('/api/v2'.length);
    if (method !== 'GET') changes.push(`${method} ${path} ${JSON.stringify(body)}`);
    if (method !== 'GET' && failure && changes.at(-1).includes(failure)) return json(res, 500, {});
    if (path === '/tenants/settings') {
      if (method === 'PATCH') open = body.flags.enable_dynamic_client_registration;
      return json(res, 200, { flags: { enable_dynamic_client_registration: open } });
    }
    if (path === '/connections') {
      const name = url.searchParams.get('name');
      return json(res, 200, connections.filter((c) => c.name === name));
    }
    const connection = connections.find((c) => path === `/connections/${c.id}`);
    if (connection) return json(res, 200, Object.assign(connection, body));
    if (path === '/client-grants' && method === 'GET') {
      const audience = url.searchParams.get('audience');
      return json(res, 200, grants.filter((g) => g.audience === audience));
    }
    if (path === '/client-grants') {
      grants.push({ id: `cgr_${grants.length}`, ...body });
      return json(res, 201, grants.at(-1));
    }
    const grant = grants.find((g) => path === `/client-grants/${g.id}`);
    if (grant) return json(res, 200, Object.assign(grant, body));
    return json(res, 404, {});
  }

  const controlPort = await instance.control({
    facts: () => ({ open, connections, grants, changes: changes.splice(0), clients }),
    refuse: ({ on }) => {
      refuse = on;
    },
    fail: ({ what }) => {
      failure = what;
    },
  });

  return { port, control: controlPort, issuer, token: TOKEN, manager: MANAGER.id, secret: MANAGER.secret };
}
