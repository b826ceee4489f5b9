// Runs any number of instances of the peers in one process: loading the OpenID provider takes
// Node about 0.3 s of CPU, starting another instance a few milliseconds. Instances share no state
// except signing keys that have not been rotated.
//
// Prints one line, {"control": port}, when it is ready. `POST /start` with {"program", "options"}
// starts an instance and responds with its id and facts; `DELETE /<id>` stops it.

import http from 'node:http';
import { Instance, json, listen, readBody } from './lib.js';

// The parent reads one line of standard output; later output of libraries would block the pipe.
console.log = console.error;
console.info = console.error;

const PROGRAMS = [
  'application',
  'auth0',
  'auth0-tenant',
  'browser',
  'oidc-provider',
  'session-provider',
  'sign-in',
  'taskcluster',
];
const instances = new Map();
let lastId = 0;

async function start({ program, options }) {
  if (!PROGRAMS.includes(program)) throw new Error(`no peer ${program}`);
  const peer = await import(`./${program}.js`);
  const instance = new Instance();
  const facts = await peer.start(options, instance);
  lastId += 1;
  instances.set(String(lastId), instance);
  return { id: lastId, ...facts };
}

const server = http.createServer(async (req, res) => {
  try {
    if (req.method === 'DELETE') {
      const id = req.url.slice(1);
      instances.get(id)?.stop();
      instances.delete(id);
      return json(res, 200, {});
    }
    return json(res, 200, await start(JSON.parse((await readBody(req)).toString())));
  } catch (error) {
    return json(res, 400, { error: String(error.stack ?? error) });
  }
});

process.stdout.write(`${JSON.stringify({ control: await listen(server) })}\n`);

// Standard input closes when the parent exits, however it exits.
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
