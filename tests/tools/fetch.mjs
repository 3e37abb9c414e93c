// Writes documents through a proxy and reads them back with Node's own fetch.
import assert from "node:assert/strict";

const base = process.argv[2];
const headers = { "content-type": "application/json" };
const documents = [
  '{"ssn":"123-45-6789","list":[1,2.50,null,{"email":"a@example.com"}]}',
  '{ "email" : "caf\\u00e9@example.com", "other":"\\ud83d\\ude00" }',
  JSON.stringify({ ssn: "long", fill: "x".repeat(200_000), end: { email: "z".repeat(5_000) } }),
];
await Promise.all(
  documents.map(async (body, number) => {
    const url = `${base}/node/${number}`;
    const written = await fetch(url, { method: "PUT", headers, body });
    assert.ok(written.ok, `${written.status} ${await written.text()}`);
    assert.equal(await (await fetch(url)).text(), body);
  }),
);
// A stream as a body goes in chunks.
const pieces = ['{"ssn":', '"in pieces"', ',"a":[', "1".repeat(100_000), "]}"];
const body = ReadableStream.from(pieces.map((piece) => new TextEncoder().encode(piece)));
const streamed = await fetch(`${base}/node/pieces`, { method: "PUT", headers, body, duplex: "half" });
assert.ok(streamed.ok, `${streamed.status}`);
assert.equal(await (await fetch(`${base}/node/pieces`)).text(), pieces.join(""));
const refused = await fetch(`${base}/node/refused`, { method: "PUT", headers, body: '{"ssn":' });
assert.equal(refused.status, 400);
assert.equal((await refused.json()).code, "truncated");
console.log("fine");
