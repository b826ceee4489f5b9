// Authenticates requests, given as one JSON object per line on stdin, as the Taskcluster auth
// service would (hawk-check.js), without HTTP in between.
//
// In:  { now, method, url, headers: { host, authorization?, "x-forwarded-port"?, … },
//        clients: { <clientId>: { accessToken, scopes } } }
// Out: { status: "success", clientId, scopes } | { status: "failed", message }
//      | { status: "none" }: no credentials | { status: "broken", message }: the service's 500

import readline from 'node:readline';
import { InternalError, Clients } from './hawk-check.js';

async function verify({ now, clients, ...request }) {
  const known = new Clients(() => now);
  for (const [clientId, client] of Object.entries(clients)) known.set(clientId, client);
  try {
    const caller = await known.check(request);
    if (!caller) return { status: 'none' };
    return { status: 'success', clientId: caller.clientId, scopes: caller.scopes };
  } catch (error) {
    return { status: error instanceof InternalError ? 'broken' : 'failed', message: error.message };
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await verify(JSON.parse(line))));
}
