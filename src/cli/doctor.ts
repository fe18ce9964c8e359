/** freehold doctor: what this machine offers, what each device needs, what is missing and how to get it. */
import { access } from "node:fs/promises";
import { arch, availableParallelism, cpus, freemem, platform, release, totalmem } from "node:os";
import type { Command } from "commander";
import { chooseDevice, deviceNames } from "../engine/choose-device.ts";
import { type BodyInfo, kernelBodies } from "../engine/kernels/native-host.ts";
import { embeddedModel } from "../engine/load-model.ts";
import { FreeholdError } from "../errors.ts";
import { command, type OutputOptions, terminalOf } from "./model-options.ts";

export function addDoctor(program: Command): void {
  command(program, "doctor", "What this machine offers and what each device needs", [
    "freehold doctor",
    "freehold doctor --json",
  ]).action(doctor);
}

async function doctor(options: OutputOptions): Promise<void> {
  const terminal = terminalOf(options);
  const report = {
    system: { platform: platform(), release: release(), arch: arch(), node: process.version },
    cpu: { model: cpus().at(0)?.model ?? "unknown", threads: availableParallelism() },
    instructions: describeInstructions(),
    memory: { total_bytes: totalmem(), free_bytes: freemem() },
    devices: await Promise.all(deviceNames.filter((name) => name !== "auto").map(describeDevice)),
    embedded_model: await describeEmbeddedModel(),
  };
  if (terminal.json) {
    await terminal.writeJson(report);
    return;
  }
  const { system, cpu, memory } = report;
  await terminal.write(
    [
      `system    ${system.platform} ${system.release} ${system.arch}, Node ${system.node}`,
      `cpu       ${cpu.model}, ${cpu.threads} threads`,
      `memory    ${gib(memory.total_bytes)} in all, ${gib(memory.free_bytes)} free`,
      ...report.instructions.map(
        ({ name, instructions, available }) =>
          `kernels   ${available ? "yes" : "no "}  ${instructions} (--instructions ${name})`,
      ),
      ...report.devices.map(
        ({ name, available, detail }) => `${name.padEnd(10)}${available ? "yes" : "no "}  ${detail}`,
      ),
      `model     ${report.embedded_model.available ? "embedded model found" : report.embedded_model.detail}`,
      "",
    ].join("\n"),
  );
}

/** The instruction sets that the native kernels were compiled for; none where they cannot be loaded. */
function describeInstructions(): readonly BodyInfo[] {
  try {
    return kernelBodies();
  } catch (error) {
    if (!(error instanceof FreeholdError)) throw error;
    return [];
  }
}

async function describeDevice(name: (typeof deviceNames)[number]) {
  try {
    using device = await chooseDevice({ device: name });
    return { name, available: true, detail: device.kernels };
  } catch (error) {
    if (!(error instanceof FreeholdError)) throw error;
    return { name, available: false, detail: `${error.message}. ${error.hint ?? ""}` };
  }
}

async function describeEmbeddedModel() {
  const available = await access(embeddedModel).then(
    () => true,
    () => false,
  );
  return { available, detail: available ? embeddedModel : "The embedded model is missing: install Freehold again" };
}

function gib(bytes: number): string {
  return `${(bytes / 1024 ** 3).toFixed(1)} GiB`;
}
