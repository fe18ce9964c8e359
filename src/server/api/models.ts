/** GET /v1/models and /v1/models/{model}: Anthropic's clients name a version in a header, all others get OpenAI's shape. */
import type { EngineInfo } from "../../engine/batching/engine-port.ts";
import type { Call, Route, Services } from "../route.ts";
import type { ApiContext } from "./api-context.ts";
import type { AnthropicModel, OpenAiModel } from "./schemas/models.ts";
import { requireModel } from "./served-model.ts";

export function modelRoutes(context: ApiContext): Route[] {
  const route = { method: "GET", scope: "infer", errors: "openai" } as const;
  const prefixes = ["/v1", "", "/beta", "/anthropic/v1"];
  return prefixes.flatMap((prefix): Route[] => [
    { ...route, path: `${prefix}/models`, handle: async (call, services) => listModels(call, services, context) },
    {
      ...route,
      path: `${prefix}/models/{model}`,
      handle: async (call, services) => showModel(call, services, context),
    },
  ]);
}

function listModels(call: Call, services: Services, { aliases }: ApiContext): void {
  const info = services.requireInfo();
  const names = [info.name, ...aliases];
  if (isAnthropic(call)) {
    const data = names.map((name) => anthropicModel(name, info, services));
    call.json(200, { data, has_more: false, first_id: names[0]!, last_id: names.at(-1)! });
  } else {
    call.json(200, { object: "list", data: names.map((name) => openAiModel(name, info, services)) });
  }
}

/** Here an unknown name is an error: a client that asks wants to know. */
function showModel(call: Call, services: Services, context: ApiContext): void {
  const name = call.parameters.model!;
  requireModel(name, services, context);
  const info = services.requireInfo();
  call.json(200, isAnthropic(call) ? anthropicModel(name, info, services) : openAiModel(name, info, services));
}

function isAnthropic({ headers, url }: Call): boolean {
  return headers["anthropic-version"] !== undefined || url.pathname.startsWith("/anthropic/");
}

function openAiModel(id: string, { contextLength }: EngineInfo, services: Services): OpenAiModel {
  return {
    id,
    object: "model",
    created: Math.floor(services.now()),
    owned_by: "freehold",
    context_window: contextLength,
    context_length: contextLength,
    max_model_len: contextLength,
    max_output_tokens: contextLength,
    input_modalities: ["text"],
    output_modalities: ["text"],
  };
}

function anthropicModel(id: string, { contextLength }: EngineInfo, services: Services): AnthropicModel {
  return {
    id,
    type: "model",
    display_name: id,
    created_at: new Date(Math.floor(services.now()) * 1000).toISOString(),
    max_input_tokens: contextLength,
    max_tokens: contextLength,
  };
}
