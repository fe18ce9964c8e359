/** Which files of the suite are run, and which are not and why. The counts are of tests that are not marked slow. */
export const suiteFiles = [
  "test_basic.py",
  "test_chat_completion.py",
  "test_compat_anthropic.py",
  "test_compat_oai_responses.py",
  "test_completion.py",
  "test_ctx_shift.py",
  "test_ignore_eos.py",
  "test_infill.py",
  "test_kv_keep_only_active.py",
  "test_metrics.py",
  "test_security.py",
  "test_sleep.py",
  "test_slot_save.py",
  "test_stream.py",
  "test_template.py",
  "test_tokenize.py",
  "test_tool_call.py",
] as const;

export const excluded: readonly { readonly file: string; readonly tests: number; readonly because: string }[] = [
  { file: "test_compat_gcp.py", tests: 2, because: "Google's prediction routes are not offered" },
  { file: "test_embedding.py", tests: 23, because: "V4 has no embeddings: 501" },
  { file: "test_lora.py", tests: 4, because: "needs an adapter from the network" },
  { file: "test_mcp_servers.py", tests: 21, because: "the server starts no tools" },
  { file: "test_proxy.py", tests: 4, because: "the server fetches nothing" },
  { file: "test_rerank.py", tests: 16, because: "V4 has no reranking: 501" },
  { file: "test_router.py", tests: 17, because: "one server has one model" },
  { file: "test_speculative.py", tests: 8, because: "needs a draft model from the network" },
  { file: "test_tools_builtin.py", tests: 20, because: "the server runs no commands" },
  { file: "test_vision_api.py", tests: 19, because: "the model reads no images; needs some from the network" },
];
