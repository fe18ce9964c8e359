/** What becomes of each parameter of llama-server's own routes. What would change an answer and is not built is refused by name. */
import type { ParameterRule } from "../request-body.ts";

const ownSampler = "Use temperature, top_k, top_p and min_p";

export const llamaParameters = {
  // They change where something is kept, never an answer: what is cached is exact here, and slots are only counted.
  cache_prompt: "ignored",
  id_slot: "ignored",
  n_keep: "ignored",
  n_discard: "ignored",
  n_cache_reuse: "ignored",
  min_keep: "ignored",
  repeat_last_n: "ignored",
  samplers: "ignored",
  backend_sampling: "ignored",
  mirostat_tau: "ignored",
  mirostat_eta: "ignored",

  grammar: { refused: "Answers that follow a grammar are not offered yet", unless: ['""'] },
  json_schema: { refused: "Answers that follow a schema are not offered yet" },
  n_indent: { refused: "Leave it out", unless: ["0"] },
  lora: { refused: "This server has no adapters", unless: ["[]"] },
  image_data: { refused: "Images are read by /v1/chat/completions", unless: ["[]"] },
  mirostat: { refused: ownSampler, unless: ["0"] },
  typical_p: { refused: ownSampler, unless: ["1"] },
  top_n_sigma: { refused: ownSampler, unless: ["-1", "0"] },
  dynatemp_range: { refused: ownSampler, unless: ["0"] },
  xtc_probability: { refused: ownSampler, unless: ["0"] },
  dry_multiplier: { refused: "Use repeat_penalty", unless: ["0"] },
  adaptive_target: { refused: ownSampler, unless: ["-1"] },
} as const satisfies Readonly<Record<string, ParameterRule>>;
