/** From the name that a user gives to the device that computes. */
import { CpuDevice } from "../device/cpu/cpu-device.ts";
import type { Device } from "../device/device.ts";
import { ReferenceDevice } from "../device/reference/reference-device.ts";
import { DeviceError, UsageError } from "../errors.ts";

export const deviceNames = ["auto", "cpu", "wasm", "webgpu", "ascend", "reference"] as const;
export type DeviceName = (typeof deviceNames)[number];

/** "auto" takes the fastest device that this version has on this machine. */
export function chooseDevice(name: string): Device {
  switch (parseDeviceName(name)) {
    case "auto":
    case "cpu":
      return new CpuDevice();
    case "reference":
      return new ReferenceDevice();
    default:
      throw new DeviceError(`The device "${name}" is not part of this version`, {
        code: "no-device",
        hint: "Use cpu or reference; freehold doctor tells what this machine offers",
      });
  }
}

function parseDeviceName(name: string): DeviceName {
  const known = deviceNames.find((candidate) => candidate === name);
  if (known === undefined) {
    throw new UsageError(`"${name}" is no device`, {
      where: "--device",
      hint: `Choose one of ${deviceNames.join(", ")}`,
    });
  }
  return known;
}
