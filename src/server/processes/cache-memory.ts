/** How much memory the caches may take: those of running requests and the remembered prompts together. */
import { totalmem } from "node:os";

export interface CacheMemory {
  /** Running requests may take all of it. */
  readonly runningBytes: number;
  /** Remembered prompts take what running requests leave of this; 0: none is remembered. */
  readonly rememberedBytes: number;
}

/** `asked` bytes; undefined: an eighth of what the machine, or the container that it is confined to, has. */
export function cacheMemory(asked: number | undefined, machineBytes = usableMemory()): CacheMemory {
  const byDefault = Math.floor(machineBytes / 8);
  // Without remembered prompts requests still run beside each other.
  return { runningBytes: asked || byDefault, rememberedBytes: asked ?? byDefault };
}

function usableMemory(): number {
  return Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
}
