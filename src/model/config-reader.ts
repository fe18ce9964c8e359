/** Keys of a JSON object, checked one by one; all problems are collected, so that one error can name them. */
export class ConfigReader {
  readonly problems: string[];
  readonly #json: Readonly<Record<string, unknown>>;
  readonly #prefix: string;
  readonly #wrongKeys = new Set<string>();

  constructor(json: Readonly<Record<string, unknown>>, prefix = "", problems: string[] = []) {
    this.#json = json;
    this.#prefix = prefix;
    this.problems = problems;
  }

  raw(key: string): unknown {
    return Object.hasOwn(this.#json, key) ? this.#json[key] : undefined;
  }

  /** Undefined where the key is absent or null. */
  section(key: string): ConfigReader | undefined {
    const value = this.raw(key);
    if (value === undefined || value === null) return undefined;
    if (typeof value !== "object" || Array.isArray(value)) {
      this.#wrong(key, value, "an object");
      return undefined;
    }
    return new ConfigReader(value as Record<string, unknown>, `${this.#prefix}${key}.`, this.problems);
  }

  require(condition: boolean, problem: string): void {
    if (!condition) this.problems.push(problem);
  }

  /** What numbers must be to each other; of one that is wrong by itself no more is told. */
  relate(keys: readonly string[], condition: boolean, problem: string): void {
    this.require(condition || keys.some((key) => this.#wrongKeys.has(key)), problem);
  }

  /** A whole number; where it is wrong, the least legal value stands in until the error is thrown. */
  count(key: string, { least = 1, most, otherwise }: { least?: number; most: number; otherwise?: number }): number {
    const value = this.raw(key) ?? otherwise;
    if (typeof value === "number" && Number.isInteger(value) && value >= least && value <= most) return value;
    this.#wrong(key, value, `a whole number from ${least} to ${most}`);
    return Math.max(least, 1);
  }

  /** A number that float32 can hold: the kernels compute with it. */
  number(key: string, { otherwise, positive = false }: { otherwise?: number; positive?: boolean }): number {
    const value = this.raw(key) ?? otherwise;
    if (typeof value === "number" && Number.isFinite(Math.fround(value)) && isInRange(value, positive)) return value;
    this.#wrong(key, value, positive ? "a number above 0 in float32" : "a number of at least 0 in float32");
    return 1;
  }

  /** A list of whole numbers, empty where the key is absent. */
  counts(key: string, { least = 0, most, mostItems }: { least?: number; most: number; mostItems: number }): number[] {
    const value = this.raw(key) ?? [];
    const valid =
      Array.isArray(value) &&
      value.length <= mostItems &&
      value.every((n) => Number.isInteger(n) && n >= least && n <= most);
    if (valid) return value;
    this.#wrong(key, value, `a list of at most ${mostItems} whole numbers from ${least} to ${most}`);
    return [];
  }

  boolean(key: string, otherwise: boolean): boolean {
    const value = this.raw(key) ?? otherwise;
    if (typeof value === "boolean") return value;
    this.#wrong(key, value, "true or false");
    return otherwise;
  }

  #wrong(key: string, value: unknown, expected: string): void {
    this.#wrongKeys.add(key);
    const name = `${this.#prefix}${key}`;
    const shown = JSON.stringify(value)?.slice(0, 60);
    this.problems.push(value === undefined ? `${name} is missing` : `${name} is ${shown}, not ${expected}`);
  }
}

function isInRange(value: number, positive: boolean): boolean {
  return positive ? Math.fround(value) > 0 : value >= 0;
}
