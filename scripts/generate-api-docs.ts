/** Writes docs/api.md from the schemas and tables of src/server/api: `npm run generate`. */
import { writeFileSync } from "node:fs";
import { apiDocument } from "../src/server/api/api-document.ts";

writeFileSync(new URL("../docs/api.md", import.meta.url), apiDocument());
