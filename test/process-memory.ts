/** How much memory this process takes, and the bounds within which a hostile image is refused. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import type { ImageReader } from "../src/media/image-reader.ts";

/** Linux tells how much memory a process has had since it was last asked to forget. */
export const skipsMemory = existsSync("/proc/self/clear_refs")
  ? false
  : "only Linux tells the greatest memory of a process";
export const forgetPeak = () => writeFileSync("/proc/self/clear_refs", "5");

/** MiB of this process. */
export function memory(field: "VmHWM" | "VmRSS"): number {
  const [, kilobytes] = new RegExp(`${field}:\\s+(\\d+)`).exec(readFileSync("/proc/self/status", "utf8"))!;
  return Number(kilobytes) / 1024;
}

/** The least of three times counts: other programs may have had the processor. */
export async function assertRefusedInBounds(reader: ImageReader, bytes: Uint8Array): Promise<void> {
  const times: number[] = [];
  forgetPeak();
  const before = memory("VmRSS");
  for (let i = 0; i < 3; i++) {
    const started = performance.now();
    await assert.rejects(reader.read(bytes));
    times.push(performance.now() - started);
  }
  assert.ok(Math.min(...times) < 50, `${times} ms`);
  assert.ok(memory("VmHWM") - before < 64, `${memory("VmHWM") - before} MiB`);
}
