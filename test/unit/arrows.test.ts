/** The checker of the arrows between folders does find what it is there for. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, describe, test } from "node:test";

const root = join(import.meta.dirname, "../..");
const tree = mkdtempSync(join(tmpdir(), "freehold-arrows-"));
after(() => rmSync(tree, { recursive: true }));
cpSync(join(root, "tsconfig.json"), join(tree, "tsconfig.json"));
cpSync(join(root, ".dependency-cruiser.mjs"), join(tree, ".dependency-cruiser.mjs"));

/** Checks a tree of files; returns the names of the broken rules. */
function check(files: Readonly<Record<string, string>>): string[] {
  rmSync(join(tree, "src"), { recursive: true, force: true });
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(tree, path)), { recursive: true });
    writeFileSync(join(tree, path), text);
  }
  const program = join(root, "node_modules/dependency-cruiser/bin/dependency-cruise.mjs");
  const json = execFileSync(process.execPath, [program, "--config", ".dependency-cruiser.mjs", "-T", "json", "src"], {
    cwd: tree,
  });
  const { summary } = JSON.parse(json.toString()) as { summary: { violations: { rule: { name: string } }[] } };
  return summary.violations.map(({ rule }) => rule.name);
}

describe("the arrows between folders", () => {
  test("a tree that keeps them passes", () => {
    assert.deepEqual(
      check({
        "src/tensor/a.ts": "export const a = 1;",
        "src/model/b.ts": 'import { a } from "../tensor/a.ts";\nexport const b = a;',
        "src/engine/c.ts":
          'import { readFileSync } from "node:fs";\nimport { b } from "../model/b.ts";\nexport const c = [b, readFileSync];',
      }),
      [],
    );
  });
  const rows: [string, Record<string, string>, string][] = [
    [
      "a model that knows a device",
      {
        "src/device/a.ts": "export const a = 1;",
        "src/model/b.ts": 'import { a } from "../device/a.ts";\nexport const b = a;',
      },
      "model-imports-only-its-own",
    ],
    [
      "a device that knows a model",
      {
        "src/model/a.ts": "export type A = 1;",
        "src/device/b.ts": 'import type { A } from "../model/a.ts";\nexport type B = A;',
      },
      "device-imports-only-its-own",
    ],
    [
      "a tensor layer that uses Node",
      { "src/tensor/a.ts": 'import { readFileSync } from "node:fs";\nexport const a = readFileSync;' },
      "node-modules-in-engine-media-server-and-cli-only",
    ],
    [
      "a new folder without arrows",
      {
        "src/errors.ts": "export const e = 1;",
        "src/extra/a.ts": 'import { e } from "../errors.ts";\nexport const a = e;',
      },
      "every-folder-has-its-arrows",
    ],
    [
      "a cycle",
      {
        "src/tensor/a.ts": 'import { b } from "./b.ts";\nexport const a = () => b;',
        "src/tensor/b.ts": 'import { a } from "./a.ts";\nexport const b = () => a;',
      },
      "no-cycles",
    ],
  ];
  for (const [what, files, rule] of rows) {
    test(`${what} is found`, () => {
      assert.ok(check(files).includes(rule));
    });
  }
});
