/** What the routes of one server share beside the services of the gateway. */
import type { TurnMemory } from "../generation/turn-memory.ts";
import type { LlamaOptions } from "./llama/llama-options.ts";
import type { ResponseStore } from "./responses/response-store.ts";
import type { ModelNaming } from "./served-model.ts";

export interface ApiContext extends ModelNaming {
  readonly memory: TurnMemory;
  readonly responses: ResponseStore;
  readonly llama: LlamaOptions;
  /** Whether a model thinks where a request says nothing of it. */
  readonly thinking: boolean;
}
