/** GET /props, /slots and /lora-adapters: what llama-server tells of itself, as far as there is such a thing here. */
import { HttpError } from "../../http-error.ts";
import type { Call, Route, Services } from "../../route.ts";
import type { ApiContext } from "../api-context.ts";
import { llamaSettings } from "./generation-settings.ts";
import type { LlamaOptions } from "./llama-options.ts";

export function serverStateRoutes({ llama }: ApiContext): Route[] {
  const get = { method: "GET", errors: "llama" } as const;
  const post = { method: "POST", scope: "admin:write", errors: "llama" } as const;
  return [
    { ...get, path: "/props", scope: "infer", handle: async (call, services) => tellProps(call, services, llama) },
    {
      ...post,
      path: "/props",
      handle: async () => refuse("Changing properties", "Start the server with other options"),
    },
    { ...get, path: "/slots", scope: "admin:read", handle: async (call, services) => tellSlots(call, services, llama) },
    {
      ...post,
      path: "/slots/{slot}",
      handle: async () =>
        refuse("Saving and restoring slots", "What was computed is kept on disk by itself: --cache-disk"),
    },
    { ...get, path: "/lora-adapters", scope: "infer", handle: async (call) => call.json(200, []) },
    { ...post, path: "/lora-adapters", handle: async (call) => setAdapters(call) },
    ...(llama.showsMetrics ? [] : [closedRoute("/metrics", "Start the server with --metrics")]),
    ...(llama.showsPage ? [] : [hiddenPage]),
  ];
}

function tellProps(call: Call, services: Services, llama: LlamaOptions): void {
  const info = services.requireInfo();
  const { tokenizer, version, dialect } = services;
  const [eos] = info.eosTokenIds;
  call.json(200, {
    default_generation_settings: {
      id: 0,
      n_ctx: info.contextLength,
      is_processing: false,
      params: llamaSettings({}, services, llama).told,
    },
    total_slots: llama.slots,
    model_alias: info.name,
    model_path: llama.modelPath ?? info.name,
    modalities: { vision: info.images !== undefined, audio: false },
    chat_template: `freehold ${dialect}: prompts are encoded message by message, not by a template`,
    bos_token: tokenizer.decode([info.bosTokenId]),
    eos_token: eos === undefined ? "" : tokenizer.decode([eos]),
    build_info: `freehold ${version}`,
    is_sleeping: services.engine.status.state === "sleeping",
  });
}

/** Slots are no places here: as many are shown at work as requests run. Of what they run nothing is told. */
function tellSlots(call: Call, services: Services, { slots, showsSlots }: LlamaOptions): void {
  if (!showsSlots) refuse("Telling slots", "Start the server with --slots");
  const { contextLength } = services.requireInfo();
  const { running } = services.engine.status;
  const list = Array.from({ length: Math.max(slots, running) }, (_, id) => ({
    id,
    n_ctx: contextLength,
    speculative: false,
    is_processing: id < running,
  }));
  call.json(200, list);
}

function setAdapters(call: Call): void {
  if (Array.isArray(call.body) && call.body.length === 0) call.json(200, { success: true });
  else refuse("Adapters", "Serve a model that they are merged into");
}

function closedRoute(path: string, hint: string): Route {
  const handle = async () => refuse(path, hint);
  return { method: "GET", path, scope: "admin:read", errors: "llama", handle };
}

const hiddenPage: Route = {
  method: "GET",
  path: "/",
  scope: "none",
  errors: "llama",
  async handle() {
    throw new HttpError(404, "There is no page", { code: "not-found" });
  },
};

function refuse(what: string, hint: string): never {
  throw new HttpError(501, `${what}: not offered by this server`, { code: "not_implemented", hint });
}
