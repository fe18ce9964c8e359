/**
 * A llama-server as its tests start it: takes its options and serves the embedded model in this process, through the same gateway,
 * routes and engine as `freehold serve --single-process`. FREEHOLD_SHIM_BREAK breaks one feature on purpose: if the counts did not
 * fall then, they would prove nothing.
 */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SingleProcess } from "../../src/server/processes/single-process.ts";
import { resolveServeConfig } from "../../src/server/serve-config.ts";
import { readShimOptions, type ShimOptions } from "./shim-options.ts";

const options = readShimOptions(process.argv.slice(2));
const broken = process.env.FREEHOLD_SHIM_BREAK;
const folder = mkdtempSync(join(tmpdir(), "freehold-shim-"));
const server = await SingleProcess.start(config(options), { version: "0.1.0" });
process.stderr.write(`listening at ${await server.url()} with the embedded model in place of the suite's\n`);

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  process.once(signal, () => {
    rmSync(folder, { recursive: true, force: true });
    void server.stop(0).then(() => process.exit(0));
  });
}

function config({ host, port, aliases, context, slots, threads, apiKey, cors, ...rest }: ShimOptions) {
  const [name = "seed-v4", ...others] = aliases.toSorted();
  const { predict, temperature, seed, thinks, sleepSeconds, ...shows } = rest;
  const keys = apiKey === undefined || broken === "auth" ? undefined : writeKeys(apiKey);
  return resolveServeConfig({
    host,
    port,
    log: "off",
    cors: [...cors],
    insecure: true,
    ...(sleepSeconds === undefined ? {} : { sleepAfterMs: 1000 * sleepSeconds }),
    singleProcess: true,
    ...(keys === undefined ? {} : { keys }),
    engineOptions: {
      threads,
      cacheDiskBytes: 0,
      servedName: name,
      maxRunning: slots,
      ...(context && { contextLength: context }),
    },
    routesModule: join(import.meta.dirname, "shim-routes.ts"),
    routesOptions: {
      broken,
      aliases: others,
      thinking: thinks,
      // The suite's model writes stories without an end, and tests count on it: the server is started as with --ignore-eos.
      llama: { slots, ignoreEos: true, ...shows, ...given({ predict, temperature, seed }) },
    },
  });
}

function given(values: Readonly<Record<string, number | undefined>>): Record<string, number> {
  return Object.fromEntries(
    Object.entries(values).filter((entry): entry is [string, number] => entry[1] !== undefined),
  );
}

function writeKeys(key: string): string {
  const path = join(folder, "keys.json");
  const sha256 = createHash("sha256").update(key).digest("hex");
  const record = { name: "suite", sha256, scopes: ["infer", "admin:read", "admin:write"] };
  writeFileSync(path, JSON.stringify({ version: 1, keys: [record] }), { mode: 0o600 });
  return path;
}
