/** freehold serve and freehold keys as a user runs them, with the embedded model. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { promisify } from "node:util";
import { Supervisor } from "../../src/server/processes/supervisor.ts";
import { resolveServeConfig } from "../../src/server/serve-config.ts";
import { v41Folder } from "../v41-folder.ts";
import { streamEvents, until } from "./start-server.ts";

const limits = { timeout: 60_000 };
const program = join(import.meta.dirname, "../../bin/freehold.js");
const folder = mkdtempSync(join(tmpdir(), "freehold-serve-"));
after(() => rmSync(folder, { recursive: true }));

const freehold = (...args: string[]) => promisify(execFile)(process.execPath, [program, ...args]);

describe("freehold keys", () => {
  test("makes a key that it shows once, lists and removes it", limits, async () => {
    const file = join(folder, "keys.json");
    const { key } = JSON.parse(
      (await freehold("keys", "add", "laptop", "--file", file, "--expires", "90d", "--json")).stdout,
    );
    assert.match(key, /^fh-[\w-]{43}$/);
    assert.ok(!readFileSync(file, "utf8").includes(key));
    assert.match((await freehold("keys", "list", "--file", file)).stdout, /^laptop\tinfer\tuntil /);
    await assert.rejects(freehold("keys", "add", "laptop", "--file", file), /There is a key called laptop already/);
    await freehold("keys", "remove", "laptop", "--file", file);
    assert.equal((await freehold("keys", "list", "--file", file)).stdout, "");
    await assert.rejects(freehold("keys", "add", "Not A Name", "--file", file), /small letters/);
  });
});

describe("freehold serve", () => {
  test("prints its URL, reads its file again on SIGHUP, and exits with 0 on SIGTERM", limits, async () => {
    const config = join(folder, "serve.json");
    const write = (more: object) => writeFileSync(config, JSON.stringify({ port: 0, log: "off", ...more }));
    write({});
    const child = spawn(
      process.execPath,
      [program, "serve", "--config", config, "--cache-dir", join(folder, "kv"), "--json"],
      {
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
    let notes = "";
    child.stderr.on("data", (text) => {
      notes += text;
    });
    const line = await new Promise<string>((resolve) => child.stdout.once("data", (text) => resolve(String(text))));
    const { url } = JSON.parse(line) as { url: string };
    assert.equal((await fetch(`${url}/readyz`)).status, 200);
    const origin = "https://app.example";
    const statusOf = async () => (await fetch(`${url}/livez`, { headers: { origin } })).status;
    assert.equal(await statusOf(), 403);
    write({ cors: [origin] });
    child.kill("SIGHUP");
    await until(async () => (await statusOf()) === 200);
    write({ prot: 1 });
    child.kill("SIGHUP");
    await until(() => /Not reloaded: .*prot/s.test(notes));
    child.kill("SIGTERM");
    assert.equal(await exited, 0, notes);
  });

  test("refuses what cannot be, with exit status 2", limits, async () => {
    const isUsage = (error: unknown) => (error as { code: number }).code === 2;
    await assert.rejects(freehold("serve", "--host", "0.0.0.0"), isUsage);
    await assert.rejects(freehold("serve", "--port", "99999"), isUsage);
    await assert.rejects(freehold("serve", "--keys", join(folder, "none.json"), "--port", "0"), /cannot be read/);
    await assert.rejects(freehold("serve", "--model", join(folder, "none"), "--port", "0"), /error: /);
  });
});

const v41 = await v41Folder();
after(() => v41[Symbol.asyncDispose]());

for (const { name, reference } of [
  { name: "the embedded model", reference: {} },
  { name: "a V4.1 model", reference: { model: v41.path } },
]) {
  describe(`an engine with ${name}, killed in the middle of an answer`, () => {
    test("goes on with the very tokens that it would have given", limits, async () => {
      const engineOptions = { cacheDiskBytes: 0 };
      await using server = disposable(
        await Supervisor.start(resolveServeConfig({ port: 0, log: "off", engineOptions, ...reference }), {
          version: "0",
        }),
      );
      const url = await server.supervisor.url();
      const ask = (stream: boolean) => {
        const prompt = "Once upon a time there was a castle";
        const body = JSON.stringify({ prompt, max_tokens: 120, temperature: 1, seed: 7, ignore_eos: true, stream });
        return fetch(`${url}/v1/completions`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body,
        });
      };
      const whole = (await (await ask(false)).json()) as { choices: { text: string; finish_reason: string }[] };
      let text = "";
      let hasKilled = false;
      for await (const { data } of streamEvents(await ask(true))) {
        if (data === "[DONE]") break;
        text += (JSON.parse(data) as { choices: { text: string }[] }).choices[0]?.text ?? "";
        if (hasKilled || text.length < 20) continue;
        process.kill(server.supervisor.enginePid!, "SIGKILL");
        hasKilled = true;
      }
      assert.ok(hasKilled && whole.choices[0]!.text.length > 40, whole.choices[0]!.text);
      assert.equal(text, whole.choices[0]!.text);
    });
  });
}

function disposable(supervisor: Supervisor) {
  return { supervisor, [Symbol.asyncDispose]: () => supervisor.stop(0) };
}
