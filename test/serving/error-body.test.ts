/** Errors in the shape of each API: what its clients look at. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { FreeholdError, RequestError } from "../../src/errors.ts";
import { fitContext } from "../../src/server/generation/fit-context.ts";
import { errorAnswer } from "../../src/server/http/error-body.ts";
import { HttpError } from "../../src/server/http-error.ts";
import type { ErrorDialect } from "../../src/server/route.ts";

const dialects = ["openai", "anthropic", "llama"] as const satisfies ErrorDialect[];

function refusal(dialect: ErrorDialect): unknown {
  try {
    return fitContext(70, 10, 64, dialect);
  } catch (error) {
    return error;
  }
}

/** What the engine throws for a prompt that the gateway let through. */
const byEngine = new RequestError("The prompt has 60 tokens and needs room for 10 more, the context only 64", {
  code: "context_length_exceeded",
});

describe("a prompt that is too long", () => {
  const words = {
    openai: /maximum context length is 64 tokens/,
    anthropic: /^prompt is too long: 70 tokens > 6\d maximum/,
  };
  for (const dialect of dialects) {
    for (const [from, error] of [
      ["the gateway", refusal(dialect)],
      ["the engine", byEngine],
    ] as const) {
      test(`refused by ${from} tells ${dialect}'s clients both lengths`, () => {
        const { status, body } = errorAnswer(error, dialect, "r");
        assert.equal(status, 400);
        const told = (body as { error: Record<string, unknown> }).error;
        if (dialect === "anthropic") {
          assert.match(String(told.message), words.anthropic);
          assert.equal(told.type, "invalid_request_error");
          return;
        }
        assert.deepEqual([told.type, told.n_prompt_tokens, told.n_ctx], ["exceed_context_size_error", 70, 64]);
        if (dialect === "openai") {
          assert.match(String(told.message), words.openai);
          assert.equal(told.code, "context_length_exceeded");
        }
      });
    }
  }
});

describe("other errors", () => {
  const cases = [
    { error: new RequestError("no", { where: "a" }), status: 400, type: "invalid_request_error" },
    { error: new HttpError(503, "no"), status: 503, type: "server_error" },
    { error: new HttpError(401, "no"), status: 401, type: "authentication_error" },
    { error: new FreeholdError("no"), status: 500, type: "server_error" },
    { error: new TypeError("/home/secret is not a function"), status: 500, type: "server_error" },
  ];
  for (const { error, status, type } of cases) {
    test(`${error.constructor.name} with ${status} has no fields of a context, and nothing of the inside`, () => {
      const answer = errorAnswer(error, "openai", "r");
      const told = (answer.body as { error: Record<string, unknown> }).error;
      assert.deepEqual([answer.status, told.type], [status, type]);
      assert.deepEqual(Object.keys(told).sort(), ["code", "message", "param", "type"]);
      assert.doesNotMatch(JSON.stringify(answer.body), /secret/);
    });
  }
});
