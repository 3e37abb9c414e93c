// What @linode/kubeseal-encrypt makes of stdin: kubeseal.mjs PUBLIC.pem NAMESPACE
import { readFileSync } from "node:fs";
import { encryptSecretItem } from "@linode/kubeseal-encrypt";

const [, , path, namespace] = process.argv;
process.stdout.write(await encryptSecretItem(readFileSync(path, "utf8"), namespace, readFileSync(0, "utf8")));
