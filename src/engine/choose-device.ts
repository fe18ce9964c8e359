/** From the name that a user gives to the device that computes. */
import { mostWorkers } from "../device/cpu/control-block.ts";
import { type Activations, KernelDevice } from "../device/cpu/kernel-device.ts";
import type { Device } from "../device/device.ts";
import { ReferenceDevice } from "../device/reference/reference-device.ts";
import { DeviceError, UsageError } from "../errors.ts";
import { NativeHost } from "./kernels/native-host.ts";
import { createWasmHost } from "./kernels/node-wasm-host.ts";
import { physicalCores } from "./kernels/physical-cores.ts";

export const deviceNames = ["auto", "cpu", "wasm", "webgpu", "ascend", "reference"] as const;
export type DeviceName = (typeof deviceNames)[number];

export interface DeviceOptions {
  readonly device?: string | undefined;
  readonly threads?: number | undefined;
  readonly activations?: Activations | undefined;
  readonly instructions?: string | undefined;
}

/** "auto" takes the native kernels, and where they cannot be loaded those in WebAssembly. */
export async function chooseDevice(options: DeviceOptions = {}): Promise<Device> {
  const name = parseDeviceName(options.device ?? "auto");
  const workers = checkThreads(options.threads) ?? Math.min(physicalCores(), mostWorkers);
  const native = () => new KernelDevice(new NativeHost({ workers, body: options.instructions }), options.activations);
  const wasm = async () =>
    new KernelDevice(await createWasmHost({ workers, body: options.instructions }), options.activations);
  switch (name) {
    case "auto":
      try {
        return native();
      } catch (error) {
        if (error instanceof DeviceError && error.code === "no-addon") return wasm();
        throw error;
      }
    case "cpu":
      return native();
    case "wasm":
      return wasm();
    case "reference":
      return new ReferenceDevice();
    default:
      throw new DeviceError(`The device "${name}" is not part of this version`, {
        code: "no-device",
        hint: "Use cpu, wasm or reference; freehold doctor tells what this machine offers",
      });
  }
}

function checkThreads(threads: number | undefined): number | undefined {
  if (threads === undefined || (Number.isInteger(threads) && threads > 0 && threads <= 64)) return threads;
  throw new UsageError(`${threads} threads are not possible`, {
    where: "--threads",
    hint: "Give a whole number from 1 to 64",
  });
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
