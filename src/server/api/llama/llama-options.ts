/** What llama-server is told by its command line and its routes repeat: defaults of requests, and which routes are open. */
export interface LlamaOptions {
  /** How many requests are told of at once (`total_slots`). Requests beyond wait like any other. */
  readonly slots: number;
  /** Tokens of an answer to a request that says nothing. Undefined: the model's default. */
  readonly predict?: number;
  /** Sampling of requests that say nothing. */
  readonly temperature?: number;
  readonly seed?: number;
  /** Completions that say nothing of it go on until their length is reached. */
  readonly ignoreEos: boolean;
  /** GET /slots tells what runs. */
  readonly showsSlots: boolean;
  /** GET /metrics answers. */
  readonly showsMetrics: boolean;
  /** GET / answers with the status page. */
  readonly showsPage: boolean;
  /** What /props tells of where the model is. */
  readonly modelPath?: string;
}

export const llamaDefaults: LlamaOptions = {
  slots: 4,
  ignoreEos: false,
  showsSlots: true,
  showsMetrics: true,
  showsPage: true,
};
