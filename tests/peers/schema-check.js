// Validates documents against a JSON Schema (draft 2020-12).
//
// In (all of stdin):  { schema, documents: { <name>: <document> } }
// Out: { <name>: ["<path> <message>", …] }, empty for a valid document. Fails if the schema is
// invalid or has unknown keywords.

import { text } from 'node:stream/consumers';
import { Ajv2020 } from 'ajv/dist/2020.js';

const { schema, documents } = JSON.parse(await text(process.stdin));
const validate = new Ajv2020({ strict: true, strictTypes: false, strictRequired: false, allErrors: true }).compile(schema);
const verdicts = {};
for (const [name, document] of Object.entries(documents)) {
  validate(document);
  verdicts[name] = (validate.errors ?? []).map(
    ({ instancePath, message, params }) => `${instancePath || '/'} ${message} ${JSON.stringify(params)}`,
  );
}
console.log(JSON.stringify(verdicts));
