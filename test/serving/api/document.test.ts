import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { apiDocument } from "../../../src/server/api/api-document.ts";
import { openApiDocument, operations } from "../../../src/server/api/openapi.ts";
import { apiRoutes } from "../../../src/server/api/routes.ts";

describe("the documents of the API", () => {
  test("docs/api.md is what npm run generate writes", () => {
    assert.equal(readFileSync(new URL("../../../docs/api.md", import.meta.url), "utf8"), apiDocument());
  });

  test("each operation and each of its other paths is a route", () => {
    const routes = new Set(apiRoutes().map(({ method, path }) => `${method} ${path}`));
    for (const { method, path, alsoAt } of operations) {
      for (const one of [path, ...alsoAt]) assert.ok(routes.has(`${method.toUpperCase()} ${one}`), `${method} ${one}`);
    }
  });

  test("the OpenAPI document has a schema for every answer and holds no reference that leads nowhere", () => {
    const text = JSON.stringify(openApiDocument("1.2.3"));
    const document = JSON.parse(text);
    assert.equal(document.openapi, "3.1.0");
    for (const { method, path } of operations) {
      const { content } = document.paths[path][method].responses["200"];
      assert.ok(Object.keys(content["application/json"].schema).length > 0, path);
    }
    assert.doesNotMatch(text, /"\$ref"/);
  });
});
