/**
 * What Prometheus reads: our own names, those of OpenTelemetry for generative AI, and those of vLLM and llama-server that dashboards
 * and autoscalers ask for. Histograms are seconds.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { EnginePort, EngineUsage, EngramCounters } from "../../engine/batching/engine-port.ts";
import type { RequestObserver } from "../limits/call-engine.ts";
import { LlamaMetrics } from "./llama-metrics.ts";

const longBuckets = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];
const tokenBuckets = [0.005, 0.01, 0.02, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5];

export class Metrics implements RequestObserver, Disposable {
  readonly #registry = new Registry();
  readonly #registers = [this.#registry];
  readonly #eventLoop = monitorEventLoopDelay({ resolution: 10 });
  readonly #requests = new Counter({
    name: "freehold_requests_total",
    help: "Requests answered",
    labelNames: ["route", "status"],
    registers: this.#registers,
  });
  readonly #refusals = new Counter({
    name: "freehold_refused_total",
    help: "Requests refused with 429",
    labelNames: ["reason"],
    registers: this.#registers,
  });
  readonly #outcomes = new Counter({
    name: "freehold_generations_total",
    help: "Generations by how they ended",
    labelNames: ["outcome"],
    registers: this.#registers,
  });
  readonly #cuts = this.#counter("freehold_streams_cut_total", "Streams whose client read too slowly");
  readonly #queue = this.#histogram("freehold_queue_seconds", "From the request to its start", longBuckets);
  readonly #firstToken = this.#histogram(
    "freehold_time_to_first_token_seconds",
    "From the request to its first token",
    longBuckets,
  );
  readonly #interToken = this.#histogram(
    "freehold_inter_token_seconds",
    "Between two deliveries of tokens",
    tokenBuckets,
  );
  readonly #duration = this.#histogram("freehold_generation_seconds", "From the request to its end", longBuckets);
  readonly #genAiFirstToken = this.#histogram(
    "gen_ai_server_time_to_first_token",
    "As freehold_time_to_first_token_seconds",
    longBuckets,
  );
  readonly #genAiDuration = this.#histogram(
    "gen_ai_server_request_duration",
    "As freehold_generation_seconds",
    longBuckets,
  );
  readonly #genAiPerToken = this.#histogram(
    "gen_ai_server_time_per_output_token",
    "As freehold_inter_token_seconds",
    tokenBuckets,
  );

  readonly #llama: LlamaMetrics;

  constructor(engine: EnginePort, numbers: { streams(): number; engineRestarts(): number; isReady(): boolean }) {
    this.#eventLoop.enable();
    this.#engineMetrics(engine);
    this.#llama = new LlamaMetrics(engine, this.#registry);
    this.#gauge("freehold_open_streams", "Streams that are open", numbers.streams);
    this.#gauge("freehold_ready", "1 when /readyz says so", () => (numbers.isReady() ? 1 : 0));
    this.#total("freehold_engine_restarts_total", "Times that the engine was lost", numbers.engineRestarts);
    this.#processMetrics();
  }

  /** The text format of Prometheus, version 0.0.4. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** `route` is its pattern: names that clients make up would grow without bound. */
  answered(route: string, status: number): void {
    this.#requests.inc({ route, status });
  }

  refused(reason: string): void {
    this.#refusals.inc({ reason });
  }

  cut(): void {
    this.#cuts.inc();
  }

  started(queueMs: number): void {
    this.#queue.observe(queueMs / 1000);
  }

  firstToken(sinceSubmitMs: number): void {
    this.#firstToken.observe(sinceSubmitMs / 1000);
    this.#genAiFirstToken.observe(sinceSubmitMs / 1000);
  }

  tokens(_count: number, sinceLastMs: number): void {
    if (sinceLastMs <= 0) return;
    this.#interToken.observe(sinceLastMs / 1000);
    this.#genAiPerToken.observe(sinceLastMs / 1000);
  }

  ended(outcome: string, totalMs: number, usage?: EngineUsage): void {
    if (usage !== undefined) this.#llama.ended(usage);
    this.#outcomes.inc({ outcome });
    this.#duration.observe(totalMs / 1000);
    this.#genAiDuration.observe(totalMs / 1000);
  }

  [Symbol.dispose](): void {
    this.#eventLoop.disable();
    this.#registry.clear();
  }

  #engineMetrics(engine: EnginePort): void {
    const status = () => engine.status;
    const counters = () => engine.status.counters;
    const cache = () => engine.status.counters.cache;
    const fullness = () => share(cache().memoryBytes, cache().memoryBudgetBytes);
    for (const name of ["freehold_requests_running", "vllm:num_requests_running"]) {
      this.#gauge(name, "Requests in the batch", () => status().running);
    }
    for (const name of ["freehold_requests_waiting", "vllm:num_requests_waiting"]) {
      this.#gauge(name, "Requests in the queue", () => status().waiting);
    }
    for (const name of ["freehold_cache_memory_share", "vllm:kv_cache_usage_perc"]) {
      this.#gauge(name, "Share of the cache's memory in use, 0 to 1", fullness);
    }
    for (const name of ["freehold_cache_lookups_total", "vllm:prefix_cache_queries_total"]) {
      this.#total(name, "Requests that asked the prefix cache", () => cache().lookups);
    }
    for (const name of ["freehold_cache_hits_total", "vllm:prefix_cache_hits_total"]) {
      this.#total(name, "Requests that found something in it", () => cache().hits);
    }
    this.#gauge("freehold_model_loaded_share", "Share of the weights that is loaded, 0 to 1", () => status().loaded);
    this.#gauge("freehold_engine_sleeping", "1 while the model is not in memory for want of work", () =>
      status().state === "sleeping" ? 1 : 0,
    );
    this.#total("freehold_engine_steps_total", "Steps of the model", () => status().steps);
    this.#total("freehold_engine_step_seconds_total", "Time in steps", () => counters().stepSeconds);
    this.#total("freehold_preemptions_total", "Requests set aside for others", () => counters().preemptions);
    this.#gauge("freehold_cache_memory_bytes", "Memory of computed prefixes", () => cache().memoryBytes);
    this.#gauge("freehold_cache_disk_bytes", "Disk of computed prefixes", () => cache().diskBytes);
    this.#total("freehold_cache_disk_read_bytes_total", "Bytes read", () => cache().diskReadBytes);
    this.#total("freehold_cache_disk_written_bytes_total", "Bytes written", () => cache().diskWrittenBytes);
    this.#total("freehold_cache_corrupt_records_total", "Records with a wrong checksum", () => cache().corruptRecords);
    this.#total("freehold_cache_evictions_total", "Prefixes dropped", () => cache().evictions);
    this.#tokenMetrics(engine);
    this.#draftMetrics(engine);
    this.#engramMetrics(engine);
  }

  /** Zeros for a model without an n-gram memory. */
  #engramMetrics(engine: EnginePort): void {
    const read = (name: keyof EngramCounters) => () => engine.status.counters.engram?.[name] ?? 0;
    this.#total("freehold_engram_lookups_total", "Rows of n-gram tables that steps asked for", read("lookups"));
    this.#total("freehold_engram_hits_total", "Of them those that were in memory", read("hits"));
    this.#total("freehold_engram_rows_read_total", "Rows that were read from the files", read("rowsRead"));
    this.#total("freehold_engram_batches_total", "Batches in which they were read", read("batches"));
    this.#total("freehold_engram_read_bytes_total", "Bytes of them", read("readBytes"));
    this.#gauge("freehold_engram_memory_bytes", "Memory of rows that are kept", read("memoryBytes"));
  }

  /** An engine has one drafter. Dashboards for vLLM ask for the totals alone. */
  #draftMetrics(engine: EnginePort): void {
    const counters = () => engine.status.counters;
    const totals: [string, string, string, () => number][] = [
      ["drafts", "spec_decode_num_drafts", "Drafts that were verified", () => counters().drafts],
      ["draft_tokens", "spec_decode_num_draft_tokens", "Tokens that were guessed", () => counters().draftedTokens],
      ["accepted_tokens", "spec_decode_num_accepted_tokens", "Of them those right", () => counters().acceptedTokens],
    ];
    for (const [name, alias, help, read] of totals) {
      this.#total(`vllm:${alias}_total`, help, read);
      new Counter({
        name: `freehold_${name}_total`,
        help,
        labelNames: ["drafter"],
        registers: this.#registers,
        collect() {
          this.reset();
          this.inc({ drafter: engine.info?.drafter ?? "off" }, read());
        },
      });
    }
  }

  #tokenMetrics(engine: EnginePort): void {
    new Counter({
      name: "freehold_tokens_total",
      help: "Tokens by kind",
      labelNames: ["kind"],
      registers: this.#registers,
      collect() {
        const { promptTokens, cachedTokens, generatedTokens, draftedTokens, acceptedTokens } = engine.status.counters;
        const kinds = {
          prompt: promptTokens,
          cached: cachedTokens,
          generated: generatedTokens,
          drafted: draftedTokens,
          accepted: acceptedTokens,
        };
        this.reset();
        for (const [kind, count] of Object.entries(kinds)) this.inc({ kind }, count);
      },
    });
  }

  #processMetrics(): void {
    const seconds = (nanoseconds: number) => (Number.isFinite(nanoseconds) ? nanoseconds / 1e9 : 0);
    this.#gauge("freehold_event_loop_lag_p99_seconds", "Of the gateway, since the last reading", () => {
      const p99 = seconds(this.#eventLoop.percentile(99));
      this.#eventLoop.reset();
      return p99;
    });
    this.#gauge("process_resident_memory_bytes", "Of the gateway", () => process.memoryUsage.rss());
    this.#total("process_cpu_seconds_total", "Of the gateway", () => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1e6;
    });
  }

  #counter(name: string, help: string): Counter {
    return new Counter({ name, help, registers: this.#registers });
  }

  #histogram(name: string, help: string, buckets: number[]): Histogram {
    return new Histogram({ name, help, buckets, registers: this.#registers });
  }

  #gauge(name: string, help: string, read: () => number): void {
    new Gauge({
      name,
      help,
      registers: this.#registers,
      collect() {
        this.set(read());
      },
    });
  }

  /** A counter that is counted elsewhere. */
  #total(name: string, help: string, read: () => number): void {
    new Counter({
      name,
      help,
      registers: this.#registers,
      collect() {
        this.reset();
        this.inc(read());
      },
    });
  }
}

function share(part: number, whole: number): number {
  return whole > 0 ? part / whole : 0;
}
