/** Every parameter of Messages (Anthropic's reference, betas among them) and what becomes of it. */
import type { ParameterRule } from "../request-body.ts";

export const messagesParameters = {
  model: "honoured",
  max_tokens: "honoured",
  messages: "honoured",
  system: "honoured",
  tools: "honoured",
  tool_choice: "honoured",
  thinking: "honoured",
  output_config: "honoured",
  stop_sequences: "honoured",
  stream: "honoured",
  temperature: "honoured",
  top_p: "honoured",
  top_k: "honoured",

  metadata: "ignored",
  service_tier: "ignored",
  cache_control: "ignored",
  context_management: "ignored",
  diagnostics: "ignored",
  inference_geo: "ignored",
  speed: "ignored",
  user_profile_id: "ignored",
  workspace_id: "ignored",
  billing_policy: "ignored",
  betas: "ignored",
  compaction: "ignored",
  fallbacks: "ignored",
  fallback_credit_token: "ignored",

  thread: { refused: "Threads are not kept here; send the messages" },
  container: { refused: "This server runs no code; offer a tool of your own" },
  mcp_servers: { refused: "This server makes no connections; let the client call the tools", unless: ["[]"] },
  output_format: { refused: "Answers that follow a schema are not offered yet; describe the JSON or use a tool" },
} as const satisfies Readonly<Record<string, ParameterRule>>;
