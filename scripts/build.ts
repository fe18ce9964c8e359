/** Writes dist/, what the package ships: JavaScript and declarations of src/. Run: npm run build */
import { execFileSync } from "node:child_process";
import { cpSync, rmSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
rmSync(join(root, "dist"), { recursive: true, force: true });
execFileSync(
  process.execPath,
  [join(root, "node_modules/typescript/bin/tsc"), "-p", join(root, "tsconfig.build.json")],
  {
    stdio: "inherit",
  },
);
// Prebuilt kernels stand at the same place beside the modules that load them.
cpSync(join(root, "src/device/cpu/prebuilt"), join(root, "dist/device/cpu/prebuilt"), { recursive: true });
