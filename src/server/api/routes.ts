/** All routes of the API, in every dialect. The gateway adds its own: health, metrics and what else needs no model. */
import { ConversationMemory } from "../generation/conversation-memory.ts";
import type { Route } from "../route.ts";
import type { ApiContext } from "./api-context.ts";
import { chatRoutes } from "./chat/chat-completions.ts";
import { completionRoutes } from "./completions/completions.ts";
import { infillRoutes } from "./llama/infill.ts";
import { llamaCompletionRoutes } from "./llama/llama-completion.ts";
import { type LlamaOptions, llamaDefaults } from "./llama/llama-options.ts";
import { serverStateRoutes } from "./llama/server-state.ts";
import { messagesRoutes } from "./messages/messages.ts";
import { modelRoutes } from "./models.ts";
import { absentRoutes } from "./not-offered.ts";
import { openApiRoute } from "./openapi.ts";
import { ResponseStore } from "./responses/response-store.ts";
import { responsesRoutes } from "./responses/responses.ts";
import { tokenRoutes } from "./tokens.ts";

export interface ApiOptions {
  /** Names that are served beside the model's own. */
  readonly aliases?: readonly string[];
  /** Refuse other names with 404; by default any name means the one model. */
  readonly strictModel?: boolean;
  /** Where reasoning, calls and tokens of earlier turns are kept. Default: in memory, bounded. */
  readonly memory?: ConversationMemory;
  /** Characters of responses that are kept for `previous_response_id`. Default: 64 Mi. */
  readonly maxStoredCharacters?: number;
  /** Whether a model thinks where a request of OpenAI's dialects says nothing of it. Default: yes. */
  readonly thinking?: boolean;
  /** What the routes of llama-server tell and take as defaults. */
  readonly llama?: Partial<LlamaOptions>;
}

export function apiRoutes(options: ApiOptions = {}): Route[] {
  const context: ApiContext = {
    aliases: options.aliases ?? [],
    strictModel: options.strictModel ?? false,
    memory: options.memory ?? ConversationMemory.inMemory(),
    responses: new ResponseStore(options.maxStoredCharacters),
    llama: { ...llamaDefaults, ...options.llama },
    thinking: options.thinking ?? true,
  };
  return [
    ...chatRoutes(context),
    ...completionRoutes(context),
    ...responsesRoutes(context),
    ...messagesRoutes(context),
    ...modelRoutes(context),
    ...tokenRoutes(context),
    ...llamaCompletionRoutes(context),
    ...infillRoutes(context),
    ...serverStateRoutes(context),
    ...absentRoutes(),
    openApiRoute(),
    {
      method: "HEAD",
      path: "/",
      scope: "none",
      errors: "plain",
      handle: async (call) => call.text(200, "", "text/plain"),
    },
  ];
}
