// A receiver in JavaScript, written from AetherFlow's public documentation alone.
//
//   node verify.mjs             X-AetherFlow-Signature, or v1a where the secret is a public key
//                               (whpk_…), with nothing but Node
//   node verify.mjs official    webhook-signature, with the npm package standardwebhooks
//
// Reads a JSON array of {"secret", "headers", "body_base64"} from stdin, prints for each one line,
// `ok` or `refused: <why>`, and exits with 1 if any was refused.

import crypto from "node:crypto";
import fs from "node:fs";

const KEYS = ["event", "id", "timestamp", "data"];

function verifySignature(payload, signature, secret) {
  // Buffer.from(…, "hex") drops what is not hex, and timingSafeEqual throws on unequal lengths.
  if (!/^[0-9a-f]{64}$/.test(signature)) return false;
  const expected = crypto.createHmac("sha256", secret).update(payload).digest("hex");
  return crypto.timingSafeEqual(Buffer.from(signature, "hex"), Buffer.from(expected, "hex"));
}

/** Whether one of the signatures is Ed25519 and of this key, as Standard Webhooks has it. */
function verifyPublic(payload, headers, publicKey) {
  const x = Buffer.from(publicKey.slice("whpk_".length), "base64").toString("base64url");
  const key = crypto.createPublicKey({ format: "jwk", key: { kty: "OKP", crv: "Ed25519", x } });
  const start = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`;
  const content = Buffer.concat([Buffer.from(start), payload]);
  return (headers["webhook-signature"] ?? "").split(" ").some((item) => {
    const [version, signature] = item.split(",");
    if (version !== "v1a" || signature === undefined) return false;
    return crypto.verify(null, content, key, Buffer.from(signature, "base64"));
  });
}

/** The reason to refuse, or nothing. */
function plain(secret, headers, body) {
  const given = {};
  for (const [name, value] of Object.entries(headers)) given[name.toLowerCase()] = value;
  const signature = given["x-aetherflow-signature"];
  if (signature === undefined) return "no X-AetherFlow-Signature";
  if (secret.startsWith("whpk_")) {
    if (!verifyPublic(body, given, secret)) {
      return "webhook-signature does not fit the body and the public key";
    }
  } else if (!verifySignature(body, signature, secret)) {
    return "X-AetherFlow-Signature does not fit the body and the secret";
  }
  let payload;
  try {
    payload = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(body));
  } catch {
    return "the body is not JSON in UTF-8";
  }
  // An object keeps its keys in the order of the text unless they look like numbers; these do not.
  const keys = payload !== null && typeof payload === "object" ? Object.keys(payload) : [];
  if (JSON.stringify(keys) !== JSON.stringify(KEYS)) {
    return `the body is not an object of ${KEYS.join(", ")}, in this order`;
  }
  for (const [header, key] of [["X-AetherFlow-Event", "event"], ["webhook-id", "id"]]) {
    if (given[header.toLowerCase()] !== payload[key]) return `${header} is not the ${key} of the body`;
  }
}

async function official() {
  const { Webhook } = await import("standardwebhooks");
  return (secret, headers, body) => {
    try {
      const webhook = secret.startsWith("whsec_")
        ? new Webhook(secret)
        : new Webhook(Buffer.from(secret, "utf8"), { format: "raw" }); // a secret the user brought
      webhook.verify(body.toString("utf8"), headers);
    } catch (error) {
      return `${error.name}: ${error.message}`;
    }
  };
}

const check = process.argv[2] === "official" ? await official() : plain;
for (const { secret, headers, body_base64 } of JSON.parse(fs.readFileSync(0, "utf8"))) {
  const why = check(secret, headers, Buffer.from(body_base64, "base64"));
  console.log(why === undefined ? "ok" : `refused: ${why.replaceAll("\n", " ")}`);
  if (why !== undefined) process.exitCode = 1;
}
