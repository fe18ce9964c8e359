/**
 * The n-gram memory of a model (Engram, DeepSeek V4.1): from the tokens of a step to the table rows that its layers add. It needs
 * nothing but token ids, those of the step and a few before it: winding back and forking cost nothing, and rows of later steps
 * can be fetched while earlier ones compute.
 */
import type { StoredMatrix } from "../../device/device.ts";
import { ModelError } from "../../errors.ts";
import type { EngramConfig, V41Config } from "../../model/config.ts";
import { engramInput } from "../../model/v41/engram.ts";
import { deadId, EngramHash, engramConstants } from "../../model/v41/engram-hash.ts";
import { isContentId } from "../vision/content-ids.ts";
import { openRowTable, type RowCounters, type RowTable } from "./row-table.ts";

/** New tokens of a sequence, and all that are before them. */
export interface NgramPart {
  readonly before: readonly number[];
  readonly tokenIds: readonly number[];
}

/** What a step reads of the n-gram memory, by the names of the graph's inputs. */
export interface EngramInputs {
  readonly inputs: Readonly<Record<string, Float32Array>>;
  readonly late: Readonly<Record<string, Promise<Float32Array>>>;
}

export interface EngramOptions {
  /** Bytes of memory for the rows of all tables together. Default: 512 MiB. */
  readonly cacheBytes?: number;
  /** Threads that read rows, for each table. Default: 4. */
  readonly readers?: number;
}

export const defaultEngramCacheBytes = 512 << 20;

interface Layer {
  readonly input: string;
  readonly hash: EngramHash;
  readonly table: RowTable;
}

export class EngramMemory implements Disposable {
  readonly #config: EngramConfig;
  readonly #imageTokenId: number | undefined;
  readonly #tokenMap: Int32Array;
  readonly #layers: readonly Layer[];
  #tokens = 0;

  private constructor(config: V41Config, engram: EngramConfig, tokenMap: Int32Array, tables: readonly RowTable[]) {
    this.#config = engram;
    this.#imageTokenId = config.imageTokenId;
    this.#tokenMap = tokenMap;
    const padId = tokenMap[engram.padTokenId]!;
    this.#layers = engramConstants(engram).map((constants, i) => ({
      input: engramInput(`layers.${engram.layers[i]}`),
      hash: new EngramHash(constants, padId),
      table: tables[i]!,
    }));
  }

  /** `tables` in the order of the config's layers; `tokenMap` has the compressed id of every token. */
  static async open(
    config: V41Config,
    engram: EngramConfig,
    tokenMap: Int32Array,
    tables: readonly { readonly name: string; readonly stored: StoredMatrix }[],
    options: EngramOptions = {},
  ): Promise<EngramMemory> {
    const budgetBytes = Math.floor((options.cacheBytes ?? defaultEngramCacheBytes) / tables.length);
    const threads = options.readers ?? 4;
    const opened: RowTable[] = [];
    try {
      for (const { name, stored } of tables) opened.push(await openRowTable(stored, name, { budgetBytes, threads }));
    } catch (error) {
      for (const table of opened) table[Symbol.dispose]();
      if (!(error instanceof RangeError)) throw error;
      throw new ModelError(`There is no memory for ${budgetBytes} bytes of an n-gram table: ${error.message}`, {
        code: "memory",
        where: "--engram-memory",
        hint: "Give less: rows that are not kept are read from the file",
        cause: error,
      });
    }
    return new EngramMemory(config, engram, tokenMap, opened);
  }

  /**
   * The inputs of a step: for each layer the rows of all its tokens, dequantised. Rows that have to be read come late: their layer
   * waits for them, and those below compute meanwhile.
   */
  inputs(parts: readonly NgramPart[]): EngramInputs {
    this.#tokens += parts.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
    const inputs: Record<string, Float32Array> = {};
    const late: Record<string, Promise<Float32Array>> = {};
    for (const { input, hash, table } of this.#layers) {
      const rows = this.#rowsOf(hash, parts);
      const values = new Float32Array(rows.length * this.#config.headDim);
      const read = table.gather(rows, values);
      if (read === undefined) {
        inputs[input] = values;
        continue;
      }
      late[input] = read.then(() => values);
      // A step that fails before it asks for them leaves nobody who would hear of this failure.
      late[input].catch(() => {});
    }
    return { inputs, late };
  }

  /** Begins to read the rows of a later step. */
  prefetch(parts: readonly NgramPart[]): void {
    if (parts.length > 0) for (const { hash, table } of this.#layers) table.prefetch(this.#rowsOf(hash, parts));
  }

  /** Table rows that the tokens name in a layer (a number in the order of the config): [tokens, columns]. */
  rows(layer: number, parts: readonly NgramPart[]): Int32Array {
    return this.#rowsOf(this.#layers[layer]!.hash, parts);
  }

  get counters(): RowCounters & { readonly tokens: number } {
    const total = { tokens: this.#tokens, lookups: 0, hits: 0, rowsRead: 0, batches: 0, reads: 0, readBytes: 0 };
    for (const { table } of this.#layers) {
      const { lookups, hits, rowsRead, batches, reads, readBytes } = table.counters;
      total.lookups += lookups;
      total.hits += hits;
      total.rowsRead += rowsRead;
      total.batches += batches;
      total.reads += reads;
      total.readBytes += readBytes;
    }
    return total;
  }

  get memoryBytes(): number {
    return this.#layers.reduce((sum, { table }) => sum + table.memoryBytes, 0);
  }

  [Symbol.dispose](): void {
    for (const { table } of this.#layers) table[Symbol.dispose]();
  }

  #rowsOf(hash: EngramHash, parts: readonly NgramPart[]): Int32Array {
    const tokens = parts.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
    const rows = new Int32Array(tokens * hash.columns);
    let done = 0;
    for (const { before, tokenIds } of parts) {
      const history = before.slice(-(this.#config.maxNgram - 1));
      const ids = [...history, ...tokenIds].map((id) => this.#compressed(id));
      hash.rows(ids, history.length, rows.subarray(done * hash.columns));
      done += tokenIds.length;
    }
    return rows;
  }

  /** Ids that the tokenizer does not have occur in no text: they count as padding. */
  #compressed(id: number): number {
    return id === this.#imageTokenId || isContentId(id)
      ? deadId
      : (this.#tokenMap[id] ?? this.#tokenMap[this.#config.padTokenId]!);
  }
}
