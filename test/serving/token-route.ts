/** A route without a dialect: {"tokens":[...],"seed":n,"max":n,"stream":bool} gives the ids that the engine gives. */
import type { EngineEvent } from "../../src/engine/batching/engine-port.ts";
import { type Json, JsonNumber, JsonObject } from "../../src/json/parse-json.ts";
import { HttpError } from "../../src/server/http-error.ts";
import type { Call, Route, Services } from "../../src/server/route.ts";

export const tokenRoute: Route = {
  method: "POST",
  path: "/v1/tokens",
  scope: "infer",
  errors: "openai",
  handle: (call, services) => answerTokens(call, services),
};

/** The same, with faults in Anthropic's shape. */
export const anthropicTokenRoute: Route = { ...tokenRoute, path: "/v1/messages", errors: "anthropic" };

async function answerTokens(call: Call, { engine }: Services): Promise<void> {
  const body = call.body instanceof JsonObject ? call.body : new JsonObject([]);
  const tokenIds = numbers(body.get("tokens"));
  const maxTokens = number(body.get("max"), 16);
  const seed = number(body.get("seed"), 0);
  const isStream = body.get("stream") === true;
  call.admit({ prompt: tokenIds.length, generated: maxTokens });
  const stream = isStream ? call.openStream() : undefined;
  const given: number[] = [];
  const done = Promise.withResolvers<void>();
  const hear = (event: EngineEvent) => {
    switch (event.type) {
      case "tokens":
        if (!isStream) given.push(...event.ids);
        return stream?.send(JSON.stringify(event.ids));
      case "end":
        call.account({
          prompt: tokenIds.length,
          cached: event.usage.cachedTokens,
          generated: event.usage.generatedTokens,
        });
        stream?.send(JSON.stringify({ finish: event.finish, generated: event.usage.generatedTokens }), "end");
        return done.resolve();
      case "error":
        return done.reject(new HttpError(503, event.error.message, { code: event.error.code }));
      default:
        return;
    }
  };
  const request = { id: call.requestId, tokenIds, generated: [], sampling: { seed }, maxTokens, stopTokenIds: [] };
  engine.submit({ ...request, key: "", priority: 1, namespace: "" }, hear);
  await done.promise;
  if (isStream) stream?.end();
  else call.json(200, { ids: given });
}

function numbers(json: Json | undefined): number[] {
  return Array.isArray(json) ? json.map((item) => number(item, 0)) : [];
}

function number(json: Json | undefined, otherwise: number): number {
  return json instanceof JsonNumber ? json.value : otherwise;
}

/** Loaded by name in a gateway process. */
export function apiRoutes(): readonly Route[] {
  return [tokenRoute, anthropicTokenRoute];
}
