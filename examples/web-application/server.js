// Serves the page of this example to hawkgate, which signs users in before they get here.
// Node 20 or later, no packages: node server.js [PORT]
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const page = readFileSync(new URL("index.html", import.meta.url));
const policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; form-action *";

createServer((request, response) => {
  const found = request.method === "GET" && request.url.split("?")[0] === "/";
  response.writeHead(found ? 200 : 404, {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": policy,
  });
  response.end(found ? page : "<!doctype html><title>Not found</title><p>There is no such page.");
}).listen(Number(process.argv[2] ?? 3000), "127.0.0.1");
