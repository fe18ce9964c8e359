/**
 * llama-server's command line, read into what Freehold's server is started with. An option that would change answers and has no
 * counterpart is refused, so that a test that needs it fails. What names a model (file, repository, template) is replaced by the
 * embedded model and its own prompt format: the suite's models cannot be had, and would not be V4.
 */
import { parseArgs } from "node:util";

const text = { type: "string" } as const;
const flag = { type: "boolean" } as const;

/** Options with a counterpart. */
const mapped = {
  host: text,
  port: text,
  alias: text,
  "ctx-size": text,
  parallel: text,
  "n-predict": text,
  temp: text,
  seed: text,
  threads: text,
  "api-key": text,
  metrics: flag,
  slots: flag,
  "no-slots": flag,
  "no-ui": flag,
  "kv-unified": flag,
  "cors-origins": text,
  "sleep-idle-seconds": text,
  reasoning: text,
} as const;

/** They name the model, or a part of it: the embedded one stands in. */
const replaced = {
  model: text,
  "model-url": text,
  "hf-repo": text,
  "hf-file": text,
  "chat-template": text,
  "chat-template-file": text,
  offline: flag,
  jinja: flag,
  "no-jinja": flag,
  "reasoning-format": text,
  tags: text,
} as const;

/**
 * They change how fast something is, or what is kept, and no answer. Without an embedding model the routes of embeddings and reranking
 * answer 501, whatever the server was told.
 */
const ignored = {
  "batch-size": text,
  "ubatch-size": text,
  "cont-batching": flag,
  "n-gpu-layers": text,
  "swa-full": flag,
  fa: text,
  ctk: text,
  ctv: text,
  "cache-ram": text,
  "no-cache-idle-slots": flag,
  verbose: flag,
  backend_sampling: flag,
  embedding: flag,
  reranking: flag,
  pooling: text,
} as const;

export interface ShimOptions {
  readonly host: string;
  readonly port: number;
  readonly aliases: readonly string[];
  /** Of one request. */
  readonly context: number | undefined;
  readonly slots: number;
  readonly predict: number | undefined;
  readonly temperature: number | undefined;
  readonly seed: number | undefined;
  readonly threads: number;
  readonly apiKey: string | undefined;
  readonly showsMetrics: boolean;
  readonly showsSlots: boolean;
  readonly showsPage: boolean;
  readonly cors: readonly string[];
  readonly thinks: boolean;
  readonly sleepSeconds: number | undefined;
}

/** Throws for an option that is unknown or has no counterpart. */
export function readShimOptions(args: readonly string[]): ShimOptions {
  // llama-server has short names of several letters.
  const long = args.map((arg) => (/^-[a-z]{2,3}$/.test(arg) ? `-${arg}` : arg));
  const { values } = parseArgs({ args: [...signed(long)], options: { ...mapped, ...replaced, ...ignored } });
  const slots = Number(values.parallel ?? 4);
  const total = values["ctx-size"] === undefined ? undefined : Number(values["ctx-size"]);
  const asked = values["n-predict"] === undefined ? -1 : Number(values["n-predict"]);
  return {
    host: values.host ?? "127.0.0.1",
    port: Number(values.port ?? 8080),
    aliases: (values.alias ?? "").split(",").filter((name) => name !== ""),
    context: total === undefined || values["kv-unified"] ? total : Math.floor(total / slots),
    slots,
    predict: asked < 0 ? undefined : asked,
    temperature: values.temp === undefined ? undefined : Number(values.temp),
    seed: values.seed === undefined ? undefined : Number(values.seed),
    threads: Number(values.threads ?? 1),
    apiKey: values["api-key"],
    showsMetrics: values.metrics ?? false,
    showsSlots: values.slots ?? false,
    showsPage: !values["no-ui"],
    // llama-server lets every page in unless it is told otherwise.
    cors: (values["cors-origins"] ?? "*").split(","),
    thinks: values.reasoning === "on",
    sleepSeconds: values["sleep-idle-seconds"] === undefined ? undefined : Number(values["sleep-idle-seconds"]),
  };
}

/** "-1" behind an option is its value: parseArgs would take it for an option. */
function* signed(args: readonly string[]): Generator<string> {
  for (let i = 0; i < args.length; i++) {
    const next = args[i + 1];
    if (args[i]!.startsWith("--") && next !== undefined && /^-\d/.test(next)) {
      yield `${args[i]}=${next}`;
      i++;
    } else yield args[i]!;
  }
}
