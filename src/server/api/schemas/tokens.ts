/** Text to tokens and back, and prompts, in the shapes of llama-server and vLLM. */
import { z } from "zod";
import { chatMessage } from "./chat.ts";

export const tokenizeRequest = z.looseObject({
  content: z.string().optional(),
  prompt: z.string().optional(),
  messages: z.array(chatMessage).optional(),
  add_special: z.boolean().optional().meta({ description: "Put a begin-of-sequence token in front" }),
  add_special_tokens: z.boolean().optional(),
  parse_special: z.boolean().optional().meta({ description: "Read spelled special tokens as such (default: yes)" }),
  with_pieces: z.boolean().optional(),
  return_token_strs: z.boolean().optional(),
});

const piece = z.union([z.string(), z.array(z.int())]);
export const tokenizeAnswer = z.strictObject({
  tokens: z.array(z.union([z.int(), z.strictObject({ id: z.int(), piece })])),
  count: z.int(),
  max_model_len: z.int(),
  token_strs: z.array(z.string()).nullable(),
});
export type TokenizeAnswer = z.infer<typeof tokenizeAnswer>;

export const detokenizeRequest = z.looseObject({ tokens: z.array(z.int().min(0)) });
export const detokenizeAnswer = z.strictObject({ content: z.string(), prompt: z.string() });

export const applyTemplateAnswer = z.strictObject({ prompt: z.string() });
