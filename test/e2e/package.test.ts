/** The package as it is published: packed, installed into an empty project, and used from there. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { gzipSync } from "node:zlib";

const root = join(import.meta.dirname, "../..");
const project = mkdtempSync(join(tmpdir(), "freehold-package-"));
after(() => rmSync(project, { recursive: true }));

const run = (command: string, args: readonly string[], cwd = project) =>
  execFileSync(command, args, { cwd, encoding: "utf8" });
const bytesOf = (path: string): number =>
  statSync(path).isDirectory()
    ? readdirSync(path).reduce((sum, name) => sum + bytesOf(join(path, name)), 0)
    : statSync(path).size;

const packed = JSON.parse(run("npm", ["pack", "--json", "--pack-destination", project], root).replace(/^[^[{]*/, ""));
const [{ filename }] = Array.isArray(packed) ? packed : Object.values(packed);
const tarball = join(project, filename);

// Installed by hand: the tests need no registry. The production dependencies are those of the checkout.
const installed = join(project, "node_modules/freehold");
mkdirSync(installed, { recursive: true });
run("tar", ["-xzf", tarball, "-C", installed, "--strip-components=1"]);
copyDependencies(installed);
writeFileSync(join(project, "package.json"), '{"name": "application", "version": "1.0.0"}');

/** What a package depends on, and what that depends on. */
function copyDependencies(folder: string): void {
  const { dependencies = {} } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  for (const name of Object.keys(dependencies)) {
    const copy = join(project, "node_modules", name);
    if (existsSync(copy)) continue;
    cpSync(join(root, "node_modules", name), copy, { recursive: true });
    copyDependencies(copy);
  }
}

const program = `
  const model = await loadModel();
  const { text } = await model.complete({ messages: [{ role: "user", content: "Who are you?" }], thinking: { type: "disabled" } });
  console.log(text);
`;

describe("the package", () => {
  test("answers from an ES module", () => {
    writeFileSync(join(project, "application.mjs"), `import { loadModel } from "freehold";\n${program}`);
    assert.match(run(process.execPath, ["application.mjs"]), /^I am Freehold seed/);
  });
  test("answers from a CommonJS module through import()", () => {
    const body = `(async () => { const { loadModel } = await import("freehold");\n${program}})();`;
    writeFileSync(join(project, "application.cjs"), body);
    assert.match(run(process.execPath, ["application.cjs"]), /^I am Freehold seed/);
  });
  test("has a program that starts", () => {
    const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
    assert.equal(run(process.execPath, [join(installed, "bin/freehold.js"), "--version"]).trim(), version);
    assert.match(run(process.execPath, [join(installed, "bin/freehold.js"), "run", "Hi"]), /^Hello/);
  });
  test("answers from WebAssembly where the addon is missing or damaged, and says so when it is asked for", () => {
    const addon = join(installed, `dist/device/cpu/prebuilt/freehold-${process.platform}-${process.arch}.node`);
    const bytes = readFileSync(addon);
    const freehold = (...args: string[]) => run(process.execPath, [join(installed, "bin/freehold.js"), ...args]);
    for (const damage of [() => rmSync(addon), () => writeFileSync(addon, "no addon")]) {
      damage();
      assert.match(freehold("run", "Hi"), /^Hello/);
      assert.match(freehold("doctor"), /cpu +no +The native kernels/);
      assert.throws(() => freehold("run", "--device", "cpu", "Hi"), /cannot be loaded/);
    }
    writeFileSync(addon, bytes);
  });
  test("reads an image of every kind, with its worker and its decoders", () => {
    const program = `
      import { readImage } from ${JSON.stringify(join(installed, "dist/media/image-reader.js"))};
      import { readFileSync } from "node:fs";
      for (const name of ["rgb.png", "444.jpg", "cmyk.jpg", "lossy.webp", "plain.gif"]) {
        const { width, height } = await readImage(readFileSync(${JSON.stringify(join(root, "test/data/media"))} + "/" + name));
        console.log(width + "x" + height);
      }`;
    const sizes = run(process.execPath, ["--input-type=module", "--eval", program]);
    assert.deepEqual(sizes.trim().split("\n"), Array(5).fill("17x11"));
  });

  test("computes in a process of its own", () => {
    writeFileSync(
      join(project, "isolated.mjs"),
      `import { loadModel } from "freehold";\n${program.replace("loadModel()", 'loadModel(undefined, { isolation: "process" })')}`,
    );
    assert.match(run(process.execPath, ["isolated.mjs"]), /^I am Freehold seed/);
  });
  test("holds JavaScript, declarations, the model with its notices, and no TypeScript source", () => {
    for (const file of ["LICENSE", "README.md", "dist/index.js", "dist/index.d.ts", "assets/seed-v4/NOTICE.data"]) {
      assert.ok(existsSync(join(installed, file)), file);
    }
    assert.ok(!existsSync(join(installed, "src")));
  });
  test("carries the kernels of all platforms in 1.45 MB, 0.76 MB of them in the tarball", () => {
    const folder = join(installed, "dist/device/cpu/prebuilt");
    const names = readdirSync(folder);
    assert.deepEqual(names.sort(), [
      ...["darwin-arm64", "darwin-x64", "linux-arm64", "linux-x64"].map((name) => `freehold-${name}.node`),
      ...["relaxed", "simd128"].map((name) => `freehold-wasm-${name}.wasm`),
      ...["win32-arm64", "win32-x64"].map((name) => `freehold-${name}.node`),
    ]);
    const packedBytes = names.reduce((sum, name) => sum + gzipSync(readFileSync(join(folder, name))).length, 0);
    assert.ok(bytesOf(folder) < 1.36e6, `${bytesOf(folder)} bytes`);
    assert.ok(packedBytes < 0.71e6, `${packedBytes} bytes`);
  });
  test("is under 60 MB with its production dependencies", () => {
    const bytes = bytesOf(join(project, "node_modules"));
    assert.ok(bytes < 60e6, `${bytes} bytes`);
  });
  test("has exports that publint and attw find right", () => {
    run(process.execPath, [join(root, "node_modules/publint/src/cli.js"), "run", tarball, "--strict"], root);
    run(
      process.execPath,
      [join(root, "node_modules/@arethetypeswrong/cli/dist/index.js"), tarball, "--profile", "esm-only"],
      root,
    );
  });
});
