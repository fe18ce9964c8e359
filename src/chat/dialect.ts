/**
 * What differs between the prompt formats of DeepSeek V4 and V4.1, as data. The strings are the formats' own: a model was
 * trained on exactly these.
 */

export type DialectName = "v4" | "v4.1";

export interface Dialect {
  readonly name: DialectName;
  /** Names of the DSML tags, behind the DSML token: V4.1 writes a blank first. */
  readonly tags: { readonly calls: string; readonly call: string; readonly parameter: string };
  /** What stands between the tags of a call without parameters. */
  readonly emptyCall: string;
  /** The system turn: V4 writes system texts directly behind the beginning of the sentence, V4.1 has a token for it. */
  readonly systemToken: string | undefined;
  /** V4 moves all system messages to the head; V4.1 keeps later ones in their place. */
  readonly keepsLaterSystem: boolean;
  /** V4 leaves the blank line out between two user messages of which one is empty. */
  readonly joinsEmptyUser: boolean;
  /** V4 puts the calls of a message in the order of their ids. */
  readonly sortsCalls: boolean;
  /** The token that stands for an image; V4 has words instead. */
  readonly imageToken: string | undefined;
  readonly jsonObjectFormat: string;
  /** Between a namespace and the name of a tool in it. */
  readonly namespaceSeparator: string;
  /** Numbers below this are written with an exponent, and whether that exponent has two digits. */
  readonly smallestPlainNumber: number;
  readonly padsExponent: boolean;
  effortText(effort: Effort): string;
}

/** How much the model should think: the levels of the API, or any whole number from 1 to 100 (V4.1 only). */
export type Effort = "low" | "high" | "max" | number;

const highEffort = `Reasoning Effort: Absolute maximum with no shortcuts permitted.
You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve the root cause, rigorously stress-testing your logic against all potential paths, edge cases, and adversarial scenarios.
Explicitly write out your entire deliberation process, documenting every intermediate step, considered alternative, and rejected hypothesis to ensure absolutely no assumption is left unchecked.

`;

const maxEffort = `Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.
You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: exhaustively decompose the problem into its most fundamental components, trace every causal chain to its root, and resolve the underlying cause rather than any surface symptom.
Do not stop reasoning until you have independently verified the solution from multiple angles and are certain that no assumption remains unchecked and no error remains undiscovered.

`;

const v4: Dialect = {
  name: "v4",
  tags: { calls: "tool_calls", call: "invoke", parameter: "parameter" },
  emptyCall: "\n",
  systemToken: undefined,
  keepsLaterSystem: false,
  joinsEmptyUser: true,
  sortsCalls: true,
  imageToken: undefined,
  jsonObjectFormat: `You are a helpful assistant designed to output JSON.
## Response Format:

Reply with JSON object ONLY.`,
  namespaceSeparator: "__",
  smallestPlainNumber: 1e-5,
  padsExponent: false,
  effortText: (effort) => (effort === "max" ? maxEffort : effort === "high" ? highEffort : ""),
};

export const schemaFormatHead = `## Response Format:

You MUST strictly adhere to the following schema to reply:
`;

const v41: Dialect = {
  name: "v4.1",
  tags: { calls: " calls", call: " invoke", parameter: " parameter" },
  emptyCall: "\n\n",
  systemToken: "<｜System｜>",
  keepsLaterSystem: true,
  joinsEmptyUser: false,
  sortsCalls: false,
  imageToken: "<｜deepseek_image｜>",
  jsonObjectFormat: `${schemaFormatHead}{"type": "json_object"}`,
  namespaceSeparator: "::",
  smallestPlainNumber: 1e-4,
  padsExponent: true,
  effortText(effort) {
    const level = typeof effort === "number" ? effort : { low: 50, high: 75, max: 100 }[effort];
    return `Reasoning Effort: ${level} (range 1-100, the higher the value, the more thorough the reasoning)\n\n`;
  },
};

export const dialects: Readonly<Record<DialectName, Dialect>> = { v4, "v4.1": v41 };

export const token = {
  begin: "<｜begin▁of▁sentence｜>",
  end: "<｜end▁of▁sentence｜>",
  user: "<｜User｜>",
  assistant: "<｜Assistant｜>",
  reminder: "<｜latest_reminder｜>",
  think: "<think>",
  endThink: "</think>",
  dsml: "｜DSML｜",
  fimBegin: "<｜fim▁begin｜>",
  fimHole: "<｜fim▁hole｜>",
  fimEnd: "<｜fim▁end｜>",
} as const;

/** Tokens of the classification tasks of the checkpoints' own encoder. */
export const taskTokens: Readonly<Record<string, string>> = {
  action: "<｜action｜>",
  query: "<｜query｜>",
  authority: "<｜authority｜>",
  domain: "<｜domain｜>",
  title: "<｜title｜>",
  read_url: "<｜read_url｜>",
};

/** Spellings that become tokens in what the assistant wrote earlier, and nowhere else. */
export const groundingTokens: readonly string[] = ["ref", "box", "point", "polygon"].flatMap((name) => [
  `<｜${name}｜>`,
  `<｜/${name}｜>`,
]);
