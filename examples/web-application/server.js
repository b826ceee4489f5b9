// Serves the page of this example to hawkgate, which signs users in before they get here.
// Node 20 or later, no packages: node server.js [PORT]
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const page = readFileSync(new URL("index.html", import.meta.url));
const policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; form-action *; frame-ancestors 'none'; base-uri 'none'";
const server = createServer((request, response) => {
  const found = request.method === "GET" && request.url.split("?")[0] === "/";
  response.writeHead(found ? 200 : 404, { "content-type": "text/html; charset=utf-8", "content-security-policy": policy });
  response.end(found ? page : "<!doctype html><html lang=en><title>Not found</title><h1>There is no such page</h1>");
});
server.listen(Number(process.argv[2] ?? 3000), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
