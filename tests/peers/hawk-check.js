// Says of requests, one JSON object a line on stdin, what a Taskcluster service would make
// of them: npm hawk checks the MAC; certificates, `ext` and the choice between header and
// bewit are checked here, apart from hawkgate's own code, by Taskcluster's documented rules.
//
// In:  { now, method, url, headers: { host, authorization?, "x-forwarded-port"?, … },
//        clients: { <clientId>: { accessToken, scopes } } }
// Out: { status: "success", scheme, clientId, temporary, scopes }
//      { status: "failed", message } | { status: "none" }
'use strict';

const crypto = require('crypto');
const hawk = require('hawk');
const querystring = require('querystring');
const readline = require('readline');

const MINUTE = 60 * 1000;
const SCOPE = /^[ -~]*$/;
const TEMPORARY_MEMBERS = ['version', 'scopes', 'start', 'expiry', 'seed', 'signature', 'issuer'];

function refuse(message) {
  throw new Error(message);
}

function holds(have, want) {
  return have.some(h => (h.endsWith('*') ? want.startsWith(h.slice(0, -1)) : h === want));
}

function checkScopes(list, name) {
  if (!Array.isArray(list) || !list.every(s => typeof s === 'string' && SCOPE.test(s) && !s.endsWith('**'))) {
    refuse(`${name} is not a list of scopes`);
  }
}

function hmac(key, text, encoding) {
  return crypto.createHmac('sha256', key).update(text).digest(encoding);
}

function checkCertificate(certificate, id, issuer, now) {
  if (typeof certificate !== 'object' || certificate === null || Array.isArray(certificate)) {
    refuse('the certificate is not an object');
  }
  const unknown = Object.keys(certificate).find(k => !TEMPORARY_MEMBERS.includes(k));
  if (unknown) refuse(`the certificate has a member ${unknown}`);
  const { version, scopes, start, expiry, seed, signature } = certificate;
  if (version !== 1) refuse('the certificate has another version');
  if (typeof seed !== 'string' || seed.length !== 44) refuse('the seed is not 44 characters');
  if (!Number.isInteger(start) || !Number.isInteger(expiry)) refuse('start or expiry is no integer');
  checkScopes(scopes, 'certificate.scopes');
  if (start > now + 5 * MINUTE) refuse('the certificate is not valid yet');
  if (expiry < now - 5 * MINUTE) refuse('the certificate has expired');
  if (expiry - start > 31 * 24 * 60 * MINUTE) refuse('the certificate is valid for too long');
  const named = 'issuer' in certificate;
  if (named && !holds(issuer.scopes, `auth:create-client:${id}`)) refuse('the issuer may not make this client');
  if (!scopes.every(s => holds(issuer.scopes, s))) refuse('the issuer does not hold the scopes');

  const lines = ['version:1'];
  if (named) lines.push(`clientId:${id}`, `issuer:${certificate.issuer}`);
  lines.push(`seed:${seed}`, `start:${start}`, `expiry:${expiry}`, 'scopes:', ...scopes);
  if (signature !== hmac(issuer.accessToken, lines.join('\n'), 'base64')) refuse('the certificate is not signed by its issuer');
}

// The credentials that `id` with `ext` stands for.
function credentials(id, ext, clients, now) {
  let parsed = {};
  if (ext !== undefined) {
    try {
      parsed = JSON.parse(Buffer.from(ext, 'base64').toString('utf8'));
    } catch {
      refuse('ext is not base64 of JSON');
    }
  }
  const { certificate, authorizedScopes } = parsed;
  const issuerId = certificate && certificate.issuer !== undefined ? certificate.issuer : id;
  if (certificate && certificate.issuer === id) refuse('the issuer must differ from the name');
  const issuer = Object.hasOwn(clients, issuerId) ? clients[issuerId] : refuse('no such client');
  let { accessToken: key, scopes } = issuer;
  if (certificate !== undefined) {
    checkCertificate(certificate, id, issuer, now);
    key = hmac(issuer.accessToken, certificate.seed, 'base64url');
    ({ scopes } = certificate);
  }
  if (authorizedScopes !== undefined) {
    checkScopes(authorizedScopes, 'authorizedScopes');
    if (!authorizedScopes.every(s => holds(scopes, s))) refuse('authorizedScopes are not held');
    scopes = authorizedScopes;
  }
  return { key, algorithm: 'sha256', scopes, temporary: certificate !== undefined };
}

// Host and port as the service computes them from what reaches it.
function destination(headers) {
  const host = hawk.utils.parseHost({ headers });
  if (!host) refuse('500: the Host header is unusable');
  let { port } = host;
  if (headers['x-forwarded-port'] !== undefined) {
    port = parseInt(headers['x-forwarded-port'], 10);
  } else if (headers['x-forwarded-proto'] === 'https') {
    port = 443;
  }
  if (!Number.isInteger(Number(port))) refuse('500: the port is no number');
  return { host: host.name, port: Number(port) };
}

async function answer({ now, method, url, headers, clients }) {
  hawk.utils.setTimeFunction(() => now);
  const { authorization } = headers;
  const question = url.indexOf('?');
  const query = question < 0 ? {} : querystring.parse(url.slice(question + 1));
  if (authorization && query.bewit) refuse('two authentication schemes at once');
  const { host, port } = destination(headers);
  const request = { method, url, host, port };

  if (authorization) {
    const { ext } = hawk.utils.parseAuthorizationHeader(authorization);
    const result = await hawk.server.authenticate(
      { ...request, authorization },
      id => credentials(id, ext, clients, now),
      { timestampSkewSec: 15 * 60 },
    );
    return { scheme: 'hawk', clientId: result.artifacts.id, ...result.credentials };
  }
  if (/^\/.*[?&]bewit=/.test(url)) {
    const text = /[?&]bewit=([\w-]*)/.exec(url)[1];
    const ext = Buffer.from(text, 'base64').toString('latin1').split('\\')[3] || undefined;
    const result = await hawk.uri.authenticate(request, id => credentials(id, ext, clients, now));
    return { scheme: 'bewit', clientId: result.attributes.id, ...result.credentials };
  }
  return null;
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    let said;
    try {
      const result = await answer(JSON.parse(line));
      if (result) {
        const { scheme, clientId, temporary, scopes } = result;
        said = { status: 'success', scheme, clientId, temporary, scopes };
      } else {
        said = { status: 'none' };
      }
    } catch (error) {
      said = { status: 'failed', message: error.message };
    }
    process.stdout.write(`${JSON.stringify(said)}\n`);
  }
}

main();
