#!/usr/bin/env node
// Starts Freehold on Node 24 or newer: the one that runs this, or the one that was installed beside it (a checkout has it as
// a development dependency). Plain JavaScript that older versions of Node can read.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath, URL } from "node:url";

const urlBeside = (path) => new URL(path, import.meta.url);
const beside = (path) => fileURLToPath(urlBeside(path));

if (Number(process.versions.node.split(".")[0]) >= 24) {
  // A module is named by a URL: Windows has paths that would be read as one of scheme "c:".
  const source = urlBeside("../src/cli/main.ts");
  const { main } = await import(existsSync(source) ? source : urlBeside("../dist/cli/main.js"));
  await main(process.argv.slice(2));
} else {
  startNewerNode();
}

function startNewerNode() {
  const node = [beside("../node_modules/node/bin/node"), beside("../node_modules/node/bin/node.exe")].find(existsSync);
  if (node === undefined) {
    process.stderr.write(
      `error: Freehold needs Node 24 or newer, this is ${process.version}. Install a newer Node, or run npm ci in a checkout\n`,
    );
    process.exit(1);
  }
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: "inherit" });
  // A terminal sends Ctrl-C to both; this process waits for the other's answer to it.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  child.on("exit", (code, signal) => process.exit(code ?? (signal === "SIGINT" ? 130 : 1)));
}
