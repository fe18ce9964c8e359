/** The public entry: its names are pinned, and it reaches no module of Node until a model is loaded from a folder. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, test } from "node:test";
import * as freehold from "../../src/index.ts";

const entry = join(import.meta.dirname, "../../src/index.ts");

/** Every file that the entry imports statically, and every module that is no file. */
function staticImports(file: string, seen = new Map<string, string[]>()): Map<string, string[]> {
  if (seen.has(file)) return seen;
  const source = readFileSync(file, "utf8");
  const imports = [...source.matchAll(/^(?:import|export)\s(?!type\b)[^;]*?from\s+"([^"]+)";/gm)].map(
    (match) => match[1]!,
  );
  seen.set(
    file,
    imports.filter((name) => !name.startsWith(".")),
  );
  for (const name of imports) if (name.startsWith(".")) staticImports(join(dirname(file), name), seen);
  return seen;
}

describe("the public API", () => {
  test("exports these names and no other", () => {
    assert.deepEqual(Object.keys(freehold).sort(), [
      "DeviceError",
      "FormatError",
      "FreeholdError",
      "MediaError",
      "Model",
      "ModelError",
      "RequestError",
      "Session",
      "ShapeError",
      "Tokenizer",
      "UsageError",
      "loadModel",
    ]);
  });
  test("imports no module of Node and no package", () => {
    const files = staticImports(entry);
    assert.ok(files.size > 20, "the walk found the tree");
    for (const [file, modules] of files) assert.deepEqual(modules, [], file);
  });
});
