/** The API as an OpenAPI 3.1 document, made from the schemas that requests and answers are checked with. */
import { z } from "zod";
import type { Route } from "../route.ts";
import { chatChunk, chatCompletion, chatRequest, openAiError } from "./schemas/chat.ts";
import { completion, completionChunk, completionRequest } from "./schemas/completions.ts";
import { infillRequest, llamaCompletion, llamaCompletionRequest, llamaEvent, props } from "./schemas/llama.ts";
import { anthropicError, message, messagesEvent, messagesRequest, tokenCount } from "./schemas/messages.ts";
import { anthropicModel, anthropicModelList, openAiModel, openAiModelList } from "./schemas/models.ts";
import {
  inputItemList,
  responseDeleted,
  responseObject,
  responsesEvent,
  responsesRequest,
  responseTokenCount,
} from "./schemas/responses.ts";
import {
  applyTemplateAnswer,
  detokenizeAnswer,
  detokenizeRequest,
  tokenizeAnswer,
  tokenizeRequest,
} from "./schemas/tokens.ts";

export interface Operation {
  readonly method: "get" | "post" | "delete";
  readonly path: string;
  readonly alsoAt: readonly string[];
  readonly summary: string;
  readonly request?: z.ZodType;
  readonly answer: z.ZodType;
  /** One event of the answer as a stream. */
  readonly event?: z.ZodType;
  readonly error: z.ZodType;
}

const model = z.union([openAiModel, anthropicModel]);

export const operations: readonly Operation[] = [
  {
    method: "post",
    path: "/v1/chat/completions",
    alsoAt: ["/chat/completions", "/beta/chat/completions"],
    summary: "Answer a conversation (OpenAI, DeepSeek)",
    request: chatRequest,
    answer: chatCompletion,
    event: chatChunk,
    error: openAiError,
  },
  {
    method: "post",
    path: "/v1/completions",
    alsoAt: ["/beta/completions"],
    summary: "Continue a text, or fill the gap before a suffix",
    request: completionRequest,
    answer: completion,
    event: completionChunk,
    error: openAiError,
  },
  {
    method: "post",
    path: "/v1/responses",
    alsoAt: ["/responses"],
    summary: "Answer a conversation of items (OpenAI Responses, Codex)",
    request: responsesRequest,
    answer: responseObject,
    event: responsesEvent,
    error: openAiError,
  },
  {
    method: "post",
    path: "/v1/responses/input_tokens",
    alsoAt: ["/responses/input_tokens"],
    summary: "Tokens of a conversation of items",
    request: responsesRequest,
    answer: responseTokenCount,
    error: openAiError,
  },
  {
    method: "get",
    path: "/v1/responses/{id}",
    alsoAt: [],
    summary: "A response that is kept",
    answer: responseObject,
    error: openAiError,
  },
  {
    method: "delete",
    path: "/v1/responses/{id}",
    alsoAt: [],
    summary: "Forget a response",
    answer: responseDeleted,
    error: openAiError,
  },
  {
    method: "get",
    path: "/v1/responses/{id}/input_items",
    alsoAt: [],
    summary: "What a response answered",
    answer: inputItemList,
    error: openAiError,
  },
  {
    method: "post",
    path: "/v1/messages",
    alsoAt: ["/anthropic/v1/messages"],
    summary: "Answer a conversation (Anthropic, Claude Code)",
    request: messagesRequest,
    answer: message,
    event: messagesEvent,
    error: anthropicError,
  },
  {
    method: "post",
    path: "/v1/messages/count_tokens",
    alsoAt: ["/anthropic/v1/messages/count_tokens"],
    summary: "Tokens of a conversation",
    request: messagesRequest,
    answer: tokenCount,
    error: anthropicError,
  },
  {
    method: "get",
    path: "/v1/models",
    alsoAt: ["/models", "/anthropic/v1/models"],
    summary: "The models that are served",
    answer: z.union([openAiModelList, anthropicModelList]),
    error: openAiError,
  },
  {
    method: "get",
    path: "/v1/models/{model}",
    alsoAt: ["/models/{model}", "/anthropic/v1/models/{model}"],
    summary: "One model",
    answer: model,
    error: openAiError,
  },
  {
    method: "post",
    path: "/tokenize",
    alsoAt: [],
    summary: "Text or messages to token ids (llama-server, vLLM)",
    request: tokenizeRequest,
    answer: tokenizeAnswer,
    error: openAiError,
  },
  {
    method: "post",
    path: "/detokenize",
    alsoAt: [],
    summary: "Token ids to text",
    request: detokenizeRequest,
    answer: detokenizeAnswer,
    error: openAiError,
  },
  {
    method: "post",
    path: "/apply-template",
    alsoAt: [],
    summary: "The prompt of a conversation",
    request: chatRequest,
    answer: applyTemplateAnswer,
    error: openAiError,
  },
  {
    method: "post",
    path: "/completion",
    alsoAt: [],
    summary: "Continue a text, in llama-server's own shape",
    request: llamaCompletionRequest,
    answer: llamaCompletion,
    event: llamaEvent,
    error: openAiError,
  },
  {
    method: "post",
    path: "/infill",
    alsoAt: [],
    summary: "Fill a gap, in llama-server's own shape (llama.vim, llama.vscode)",
    request: infillRequest,
    answer: llamaCompletion,
    event: llamaEvent,
    error: openAiError,
  },
  {
    method: "get",
    path: "/props",
    alsoAt: [],
    summary: "What llama-server tells of its model",
    answer: props,
    error: openAiError,
  },
];

export function openApiDocument(version: string): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const operation of operations) {
    paths[operation.path] = { ...paths[operation.path], [operation.method]: describeOperation(operation) };
  }
  return {
    openapi: "3.1.0",
    info: { title: "Freehold", version, license: { name: "Apache-2.0", identifier: "Apache-2.0" } },
    paths,
    components: { securitySchemes: { key: { type: "http", scheme: "bearer" } } },
    security: [{ key: [] }, {}],
  };
}

function describeOperation({ path, summary, request, answer, event, error }: Operation): Record<string, unknown> {
  const parameters = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name,
    in: "path",
    required: true,
    schema: { type: "string" },
  }));
  return {
    summary,
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(request === undefined
      ? {}
      : { requestBody: { required: true, content: { "application/json": { schema: toSchema(request, "input") } } } }),
    responses: {
      "200": {
        description: "The answer",
        content: {
          "application/json": { schema: toSchema(answer, "output") },
          ...(event === undefined ? {} : { "text/event-stream": { itemSchema: toSchema(event, "output") } }),
        },
      },
      default: { description: "An error", content: { "application/json": { schema: toSchema(error, "output") } } },
    },
  };
}

function toSchema(schema: z.ZodType, io: "input" | "output"): unknown {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: "any" });
  return rest;
}

export function openApiRoute(): Route {
  return {
    method: "GET",
    path: "/openapi.json",
    scope: "none",
    errors: "plain",
    handle: async (call, { version }) => call.json(200, openApiDocument(version)),
  };
}
