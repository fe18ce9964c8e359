/** The embedded model in headless Chromium, against the values that the reference recorded. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { stripTypeScriptTypes } from "node:module";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { describe, test } from "node:test";

const root = join(import.meta.dirname, "../..");
const chromium = ["/usr/bin/chromium", "/usr/bin/google-chrome"].find((path) => existsSync(path));
const skip = chromium === undefined && "there is no /usr/bin/chromium; scripts/install-tools.sh installs it";

const types: Readonly<Record<string, string>> = {
  ".html": "text/html",
  ".ts": "text/javascript",
  ".wasm": "application/wasm",
};

interface Result {
  readonly error?: string;
  readonly kernels: string;
  readonly prompts: { name: string; first: number[]; tokens: number[]; tokensPerSecond: number }[];
}

/** Serves the repository with the headers that shared memory needs, opens a page of it, and returns what the page posts. */
async function openPage(path: string): Promise<Result> {
  const { promise, resolve, reject } = Promise.withResolvers<Result>();
  const server = createServer((request, response) => {
    if (request.method === "POST") {
      let body = "";
      request.on("data", (chunk) => {
        body += chunk;
      });
      request.on("end", () => {
        response.end();
        resolve(JSON.parse(body));
      });
      return;
    }
    const file = join(root, normalize(new URL(request.url!, "http://localhost").pathname));
    if (!file.startsWith(root) || !existsSync(file)) {
      response.writeHead(404).end();
      return;
    }
    const bytes = readFileSync(file);
    response.writeHead(200, {
      "content-type": types[extname(file)] ?? "application/octet-stream",
      "cross-origin-opener-policy": "same-origin",
      "cross-origin-embedder-policy": "require-corp",
    });
    response.end(file.endsWith(".ts") ? stripTypeScriptTypes(bytes.toString()) : bytes);
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address() as AddressInfo;
  const profile = mkdtempSync(join(tmpdir(), "freehold-browser-"));
  const flags =
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run --disable-sync";
  const quiet = "--disable-background-networking --disable-component-update";
  const browser: ChildProcess = spawn(
    chromium!,
    [...flags.split(" "), ...quiet.split(" "), `--user-data-dir=${profile}`, `http://127.0.0.1:${port}/${path}`],
    { stdio: "ignore" },
  );
  browser.on("exit", (code) => reject(new Error(`The browser ended with ${code} before the page posted a result`)));
  const timer = setTimeout(() => reject(new Error("The page posted nothing within two minutes")), 120_000);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    browser.removeAllListeners("exit");
    const ended = new Promise((done) => browser.on("exit", done));
    browser.kill("SIGKILL");
    await ended;
    server.close();
    server.closeAllConnections();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

describe("in headless Chromium", { skip }, () => {
  const golden = JSON.parse(readFileSync(join(root, "assets/seed-v4/golden.json"), "utf8"));
  for (const [module, workers] of [
    ["relaxed", 2],
    ["simd128", 1],
  ] as const) {
    test(`${module}, ${workers} workers: logits and greedy answers are those of the reference`, async (context) => {
      const result = await openPage(`test/browser/page.html?module=${module}&workers=${workers}`);
      assert.equal(result.error, undefined);
      result.prompts.forEach(({ first, tokens }, p) => {
        const { top5, greedy } = golden.prompts[p];
        for (const [id, logit] of top5)
          assert.ok(Math.abs(first[id]! - logit) <= 1e-3, `token ${id}: ${first[id]}, expected ${logit}`);
        assert.deepEqual(tokens, greedy);
      });
      const speeds = result.prompts.map(({ tokensPerSecond }) => tokensPerSecond.toFixed(0));
      context.diagnostic(`${result.kernels}: ${speeds.join(", ")} tokens/s`);
    });
  }
});
