/** From a checkpoint to a device, one parameter at a time. */
import type { Device } from "../device/device.ts";
import type { Parameter } from "../model/parameters.ts";
import type { Checkpoint } from "./checkpoint.ts";

/** Gives a parameter to a device: as the file has it where the device reads that format, else as plain numbers. */
export async function giveParameter(
  checkpoint: Pick<Checkpoint, "stored" | "checkScales" | "load">,
  { name, isFactor }: Parameter,
  device: Device,
): Promise<void> {
  const stored = isFactor && device.setMatrix !== undefined ? checkpoint.stored(name) : undefined;
  if (stored !== undefined) await checkpoint.checkScales(name);
  const isTaken = stored !== undefined && (await device.setMatrix!(name, stored));
  if (!isTaken) device.setWeight(name, (await checkpoint.load(name)).data);
}
