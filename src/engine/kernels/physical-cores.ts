/** How many threads compute fastest: one for each physical core that this process may use. */
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { loadAddon } from "./native-host.ts";

/**
 * Node's count respects the affinity of the process and the quota of its cgroup. Where Linux or Windows tells which logical
 * processors share a core, only one of each is counted: a second thread on a core slows both.
 */
export function physicalCores(): number {
  const available = availableParallelism();
  const cores = process.platform === "win32" ? coresOfWindows() : coresOfLinux();
  return Math.max(1, Math.min(available, cores || available, 64));
}

/** 0 where the system does not tell, or there is no addon to ask it. */
function coresOfWindows(): number {
  try {
    const answer = new Uint8Array(64 << 10); // 48 bytes a core
    return loadAddon().cores(answer, answer.length);
  } catch {
    return 0;
  }
}

function coresOfLinux(): number {
  const cores = new Set<string>();
  for (const processor of allowedProcessors()) {
    const siblings = readText(`/sys/devices/system/cpu/cpu${processor}/topology/thread_siblings_list`);
    cores.add(siblings ?? String(processor));
  }
  return cores.size;
}

/** The numbers of the logical processors that this process may run on; none where the system does not tell. */
function allowedProcessors(): number[] {
  const list = /^Cpus_allowed_list:\s*(.*)$/m.exec(readText("/proc/self/status") ?? "")?.[1];
  return (list ?? "").split(",").flatMap((range) => {
    const [first, last] = range.split("-").map(Number) as [number, number | undefined];
    if (range === "" || !Number.isInteger(first)) return [];
    return Array.from({ length: (last ?? first) - first + 1 }, (_, i) => first + i);
  });
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}
