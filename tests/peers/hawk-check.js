// The checks of the Taskcluster auth service (docs/design/taskcluster.md, "Hawk as Taskcluster
// checks it"), on top of the Hawk package that it uses.

import crypto from 'node:crypto';
import net from 'node:net';
import querystring from 'node:querystring';
import Hawk from 'hawk';

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const CERTIFICATE_SKEW = 5 * MINUTE;
const SEED_LENGTH = 44;

/** Whether `pattern`, which may end in `*`, covers `scope`. */
const covers = (pattern, scope) =>
  pattern === scope || (pattern.endsWith('*') && scope.startsWith(pattern.slice(0, -1)));

/** Whether the scopes `held` satisfy every scope of `required`. */
export const satisfies = (held, required) =>
  required.every((scope) => held.some((pattern) => covers(pattern, scope)));

const isScopes = (value) =>
  Array.isArray(value) && value.every((s) => typeof s === 'string' && /^[ -~]*$/.test(s));

/** base64 HMAC-SHA256 over the certificate's lines. */
export function certificateSignature(certificate, clientId, key) {
  const lines = ['version:1'];
  if (certificate.issuer) lines.push(`clientId:${clientId}`, `issuer:${certificate.issuer}`);
  lines.push(
    `seed:${certificate.seed}`,
    `start:${certificate.start}`,
    `expiry:${certificate.expiry}`,
    'scopes:',
    ...certificate.scopes,
  );
  return crypto.createHmac('sha256', key).update(lines.join('\n')).digest('base64');
}

/** The access token that belongs to a certificate. */
export const temporaryToken = (seed, key) =>
  crypto.createHmac('sha256', key).update(seed).digest('base64url');

/** Named temporary credentials, as an issuing client creates them. */
export function mint({ clientId, issuer, key, scopes, start, expiry }) {
  const seed = (crypto.randomUUID() + crypto.randomUUID()).replaceAll('-', '').slice(0, SEED_LENGTH);
  const certificate = { version: 1, scopes, start, expiry, seed, issuer };
  certificate.signature = certificateSignature(certificate, clientId, key);
  return {
    clientId,
    accessToken: temporaryToken(seed, key),
    certificate: JSON.stringify(certificate),
  };
}

/** A 401 with the message of the service. */
class Refusal extends Error {}
const refuse = (message) => {
  throw new Refusal(message);
};

/** An invalid request to which the real services respond with 500. */
export class InternalError extends Error {}

/** The host and port with which the service computes the MAC. */
export function publicAddress(headers) {
  const { host } = headers;
  if (!host || host.startsWith('[')) throw new InternalError('Host');
  const forwardedFor = headers['x-forwarded-for'];
  if (forwardedFor !== undefined && !forwardedFor.split(',').every((a) => net.isIP(a.trim()))) {
    throw new InternalError('X-Forwarded-For');
  }
  const [name, ownPort] = host.split(':');
  const forwardedPort = headers['x-forwarded-port'];
  if (forwardedPort !== undefined) {
    const port = Number.parseInt(forwardedPort, 10);
    if (Number.isNaN(port)) throw new InternalError('X-Forwarded-Port');
    return { host: name, port };
  }
  if (headers['x-forwarded-proto'] === 'https') return { host: name, port: 443 };
  return { host: name, port: ownPort ? Number(ownPort) : 80 };
}

/** The clients of the deployment. */
export class Clients {
  #clients = new Map();
  #revokedSeeds = new Set();
  #seenSeeds = new Set();

  constructor(now) {
    this.now = now;
  }
  get(clientId) {
    return this.#clients.get(clientId);
  }
  set(clientId, client) {
    this.#clients.set(clientId, { scopes: [], disabled: false, ...this.get(clientId), ...client });
  }
  delete(clientId) {
    return this.#clients.delete(clientId);
  }
  /** Revokes every certificate issued or seen so far. */
  revokeSeen() {
    for (const seed of this.#seenSeeds) this.#revokedSeeds.add(seed);
    this.#seenSeeds.clear();
  }
  remember(seed) {
    this.#seenSeeds.add(seed);
  }

  #find(clientId) {
    const client = this.#clients.get(clientId);
    if (!client) refuse(`Client with clientId '${clientId}' not found`);
    if (client.disabled) refuse(`Client with clientId '${clientId}' is disabled`);
    if (client.expires && Date.parse(client.expires) < this.now()) {
      refuse(`Client with clientId: '${clientId}' has expired`);
    }
    return client;
  }

  #checkCertificate(clientId, certificate) {
    if (typeof certificate !== 'object' || certificate === null || Array.isArray(certificate)) {
      refuse('ext.certificate must be a JSON object');
    }
    const { version, seed, start, expiry, scopes, signature, issuer } = certificate;
    if (version !== 1) refuse('ext.certificate.version must be 1');
    if (typeof seed !== 'string' || seed.length !== SEED_LENGTH) {
      refuse('ext.certificate.seed must be 44 characters');
    }
    if (!Number.isInteger(start)) refuse('ext.certificate.start must be a number');
    if (!Number.isInteger(expiry)) refuse('ext.certificate.expiry must be a number');
    if (!isScopes(scopes)) refuse('ext.certificate.scopes must be an array of valid scopes');
    if (typeof signature !== 'string') refuse('ext.certificate.signature must be a string');
    if (issuer !== undefined && typeof issuer !== 'string') {
      refuse('ext.certificate.issuer must be a string');
    }
    if (issuer === clientId) refuse('ext.certificate.issuer must differ from the supplied clientId');
    if (start > this.now() + CERTIFICATE_SKEW) refuse('ext.certificate.start > now');
    if (expiry < this.now() - CERTIFICATE_SKEW) refuse('ext.certificate.expiry < now');
    if (expiry - start > 31 * DAY) refuse('ext.certificate cannot last longer than 31 days');
    const authority = this.#find(issuer ?? clientId);
    if (issuer && !satisfies(authority.scopes, [`auth:create-client:${clientId}`])) {
      refuse(`ext.certificate issuer ${issuer} doesn't have \`auth:create-client:${clientId}\``);
    }
    const expected = certificateSignature(certificate, clientId, authority.accessToken);
    const same =
      expected.length === signature.length &&
      crypto.timingSafeEqual(Buffer.from(expected), Buffer.from(signature));
    if (!same || this.#revokedSeeds.has(seed)) refuse('ext.certificate.signature is not valid');
    if (!satisfies(authority.scopes, scopes)) {
      refuse(`ext.certificate issuer ${issuer ?? clientId} doesn't satisfy all certificate scopes`);
    }
    this.remember(seed);
    return { key: temporaryToken(seed, authority.accessToken), scopes };
  }

  /** The key with which to check the MAC, and its scopes. */
  #resolve(clientId, ext) {
    const resolved = ext?.certificate !== undefined
      ? this.#checkCertificate(clientId, ext.certificate)
      : (({ accessToken, scopes }) => ({ key: accessToken, scopes }))(this.#find(clientId));
    if (ext?.authorizedScopes === undefined) return resolved;
    if (!isScopes(ext.authorizedScopes)) refuse('ext.authorizedScopes must be an array of valid scopes');
    if (!satisfies(resolved.scopes, ext.authorizedScopes)) {
      refuse('Supplied credentials do not satisfy authorizedScopes; the client does not hold them');
    }
    return { ...resolved, scopes: ext.authorizedScopes };
  }

  /**
   * Authenticates one request: `null` if it has no credentials, otherwise its client and
   * scopes; throws a Refusal where the service responds with 401.
   */
  async check(req, body) {
    const { authorization } = req.headers;
    // With a header the service inspects the parsed query, without one the raw text.
    const query = querystring.parse(req.url.split('?').slice(1).join('?'));
    if (authorization && query.bewit) refuse('two authentication schemes: a bewit and a header');
    const bewit = !authorization && /^\/.*[?&]bewit=/.test(req.url);
    if (!bewit && !authorization) return null;
    const options = { localtimeOffsetMsec: this.now() - Date.now(), timestampSkewSec: 15 * 60 };
    const request = {
      ...publicAddress(req.headers),
      method: req.method,
      url: req.url,
      authorization,
      contentType: req.headers['content-type'] ?? '',
    };
    const load = (attributeExt) => (clientId) => {
      const { key, scopes } = this.#resolve(clientId, readExt(attributeExt()));
      return { key, algorithm: 'sha256', clientId, scopes };
    };
    try {
      if (bewit) {
        const { credentials } = await Hawk.uri.authenticate(request, load(() => bewitExt(req.url)), options);
        return credentials;
      }
      const ext = () => Hawk.utils.parseAuthorizationHeader(authorization).ext;
      const { credentials, artifacts } = await Hawk.server.authenticate(request, load(ext), options);
      checkPayload(req, body, artifacts, credentials);
      return credentials;
    } catch (error) {
      if (error instanceof InternalError) throw error;
      if (error instanceof Refusal || !error.isBoom) throw new Refusal(error.message);
      throw new Refusal(`${error.output.payload.error}: ${error.message}`);
    }
  }
}

export const isRefusal = (error) => error instanceof Refusal;

function readExt(ext) {
  if (!ext) return undefined;
  try {
    return JSON.parse(Buffer.from(ext, 'base64').toString('utf8'));
  } catch {
    return refuse('Failed to parse ext');
  }
}

function bewitExt(url) {
  const encoded = /[?&]bewit=([^&]*)/.exec(url)[1];
  return Buffer.from(encoded, 'base64url').toString().split('\\')[3];
}

/** A payload hash is optional, but checked if present. */
function checkPayload(req, body, artifacts, credentials) {
  if (!artifacts.hash) return;
  const type = req.headers['content-type'] ?? '';
  const payload = type.startsWith('application/json') ? (body ?? Buffer.alloc(0)).toString() : '';
  const expected = Hawk.crypto.calculatePayloadHash(payload, credentials.algorithm, type);
  if (expected.length !== artifacts.hash.length) throw new InternalError('hash');
  if (expected !== artifacts.hash) refuse('Unauthorized: Bad payload hash');
}
