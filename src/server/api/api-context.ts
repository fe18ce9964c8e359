/** What the routes of one server share beside the services of the gateway. */
import type { ConversationMemory } from "../generation/conversation-memory.ts";
import type { LlamaOptions } from "./llama/llama-options.ts";
import type { ResponseStore } from "./responses/response-store.ts";
import type { ModelNaming } from "./served-model.ts";

export interface ApiContext extends ModelNaming {
  readonly memory: ConversationMemory;
  readonly responses: ResponseStore;
  readonly llama: LlamaOptions;
  /** Whether a model thinks where a request says nothing of it. */
  readonly thinking: boolean;
}
