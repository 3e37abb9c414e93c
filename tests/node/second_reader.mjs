// A third implementation of wire format 1, written from docs/wire-format.md alone, on libsodium's JavaScript build.
//
//     second_reader.mjs open  ROOT DOCUMENT NAME < lines of JSON {"token", "context", "tenant", "bind"} > values as JSON
//     second_reader.mjs write ROOT DOCUMENT NAME < lines of JSON {"type", "text", …, "pad", "deterministic"} > tokens
import { readFileSync } from "node:fs";
import sodium from "libsodium-wrappers";

await sodium.ready;
const utf8 = (text) => new TextEncoder().encode(text);
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const bytes = (...parts) => Buffer.concat(parts.map((part) => (typeof part === "string" ? utf8(part) : Buffer.from(part))));
const equal = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)) === 0;
const refuse = (why) => {
  throw new Error(why);
};

function lp(data) {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(data.length);
  return bytes(length, data);
}

const hash = (key, message) => sodium.crypto_generichash(32, message, key);

function unbase64(text) {
  const data = Buffer.from(text, "base64url");
  return data.toString("base64url") === text ? data : refuse("not strict base64url");
}

const openX = (key, nonce, sealed, aad) => sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(null, sealed, aad, nonce, key);
const sealX = (key, nonce, plain, aad) => sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(plain, aad, null, nonce, key);
const long = (nonce) => bytes(nonce, new Uint8Array(8));
const openA = (key, nonce, sealed, aad) => sodium.crypto_aead_aegis256_decrypt(null, sealed, aad, long(nonce), key);
const sealA = (key, nonce, plain, aad) => sodium.crypto_aead_aegis256_encrypt(plain, aad, null, long(nonce), key);

function openDocument(root, text, name) {
  const [line, mac] = text.split("\n");
  const document = JSON.parse(line);
  if (document.v !== 1 || document.name !== name || document.k !== 1) refuse("document");
  const id = hash(root, "oil1 rootid").slice(0, 8);
  const entry = document.roots.find((entry) => equal(unbase64(entry.id), id)) ?? refuse("no root");
  const wrapped = unbase64(entry.wrapped);
  const shares = bytes("oil1 shares", lp(utf8(name)), [document.k, entry.x]);
  const w = openX(hash(root, "oil1 shares"), wrapped.subarray(0, 24), wrapped.subarray(24), shares);
  if (!equal(hash(hash(w, bytes("oil1 docmac", lp(utf8(name)))), line), unbase64(mac))) refuse("MAC");
  return document.versions.map((version) => {
    const id = unbase64(version.key_id);
    const aad = bytes(lp(utf8(name)), id, [version.alg, { field: 1, lookup: 2 }[version.line]]);
    const sealed = unbase64(version.sealed);
    const key = openX(hash(w, bytes("oil1 keyset", lp(utf8(name)))), sealed.subarray(0, 24), sealed.subarray(24), aad);
    if (!equal(hash(key, bytes("oil1 key id", [version.alg])), id)) refuse("key id");
    return { id, key, alg: version.alg, line: version.line, state: version.state };
  });
}

const subkey = (version, purpose, tenant, context) =>
  hash(version.key, bytes("oil1 subkey", [purpose, version.alg], lp(utf8(tenant)), lp(utf8(context))));

function authenticated(alg, kind, id, { tenant, context }, bind) {
  const named = Object.entries(bind).map((pair) => pair.map((text) => Buffer.from(utf8(text))));
  named.sort((a, b) => Buffer.compare(a[0], b[0]));
  const values = named.map(([name, value]) => bytes(lp(name), lp(value)));
  return bytes("oil1", [alg, kind], id, lp(utf8(tenant)), lp(utf8(context)), [named.length], ...values);
}

function openToken(versions, token, place) {
  if (!token.startsWith("oil1.")) refuse("prefix");
  const data = unbase64(token.slice(5));
  const [alg, kind] = data;
  const [id, nonce, sealed] = [data.subarray(2, 10), data.subarray(10, 34), data.subarray(34)];
  const deterministic = (alg & 0x10) !== 0;
  const version = versions.find((version) => equal(version.id.subarray(0, 8), id) && version.alg === (alg & 0x8f));
  if (!version || (version.line === "lookup") !== deterministic) refuse("key");
  const key = subkey(version, deterministic ? 2 : 1, place.tenant, place.context);
  const aad = authenticated(alg, kind, id, place, deterministic ? {} : place.bind);
  const plain = Buffer.from(((alg & 0x0f) === 1 ? openX : openA)(key, nonce, sealed, aad));
  if (deterministic) {
    const right = hash(subkey(version, 3, place.tenant, place.context), bytes(lp(aad), plain)).slice(0, 24);
    if (!equal(right, nonce)) refuse("nonce");
  }
  if (kind !== 0) return spelled(kind, plain);
  let end = plain.length;
  while (end > 0 && plain[end - 1] === 0) end -= 1;
  return plain[end - 1] === 0x80 ? spelled(plain[0], plain.subarray(1, end - 1)) : refuse("padding");
}

// The JSON text of a value.
function spelled(kind, plain) {
  if (kind === 1) return JSON.stringify(decoder.decode(plain));
  if (kind === 2) return `"${decoder.decode(plain)}"`;
  if (kind === 4) return ["false", "true"][plain[0]];
  return kind === 5 ? "null" : decoder.decode(plain);
}

function writeToken(versions, request, place) {
  const line = request.deterministic ? "lookup" : "field";
  const version = versions.find((version) => version.line === line && version.state === "active");
  const alg = version.alg | (request.deterministic ? 0x10 : 0);
  let [kind, plain] = [request.type, bytes(request.text)];
  if (request.pad) {
    const inside = bytes([kind], plain, [0x80]);
    plain = bytes(inside, new Uint8Array(-inside.length & (request.pad - 1)));
    kind = 0;
  }
  const id = version.id.subarray(0, 8);
  const aad = authenticated(alg, kind, id, place, request.deterministic ? {} : place.bind);
  const nonce = request.deterministic
    ? hash(subkey(version, 3, place.tenant, place.context), bytes(lp(aad), plain)).slice(0, 24)
    : sodium.randombytes_buf(24);
  const key = subkey(version, request.deterministic ? 2 : 1, place.tenant, place.context);
  const sealed = ((alg & 0x0f) === 1 ? sealX : sealA)(key, nonce, plain, aad);
  return `oil1.${bytes([alg, kind], id, nonce, sealed).toString("base64url")}`;
}

const [mode, root, document, name] = process.argv.slice(2);
const versions = openDocument(readFileSync(root), readFileSync(document, "utf8"), name);
for (const line of readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const request = JSON.parse(line);
  const place = { context: request.context, tenant: request.tenant ?? "", bind: request.bind ?? {} };
  console.log(mode === "open" ? openToken(versions, request.token, place) : writeToken(versions, request, place));
}
