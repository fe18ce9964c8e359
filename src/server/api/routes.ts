/** All routes of the API, in every dialect. The gateway adds its own: health, metrics and what else needs no model. */
import { BoundedTurnMemory, type TurnMemory } from "../generation/turn-memory.ts";
import type { Route } from "../route.ts";
import type { ApiContext } from "./api-context.ts";
import { chatRoutes } from "./chat/chat-completions.ts";
import { completionRoutes } from "./completions/completions.ts";
import { llamaServerRoutes } from "./llama-server/llama-completion.ts";
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
  /** Where reasoning and calls of earlier turns are kept. Default: in memory, bounded. */
  readonly memory?: TurnMemory;
  /** Characters of responses that are kept for `previous_response_id`. Default: 64 Mi. */
  readonly maxStoredCharacters?: number;
}

export function apiRoutes(options: ApiOptions = {}): Route[] {
  const context: ApiContext = {
    aliases: options.aliases ?? [],
    strictModel: options.strictModel ?? false,
    memory: options.memory ?? new BoundedTurnMemory(),
    responses: new ResponseStore(options.maxStoredCharacters),
  };
  return [
    ...chatRoutes(context),
    ...completionRoutes(context),
    ...responsesRoutes(context),
    ...messagesRoutes(context),
    ...modelRoutes(context),
    ...tokenRoutes(),
    ...llamaServerRoutes(),
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
