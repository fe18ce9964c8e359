/** The engine that a configuration names. */
import type { ServeConfig } from "../serve-config.ts";
import type { HostedEngine, StartEngine } from "./engine-messages.ts";
import { moduleBeside } from "./module-path.ts";
import { SleepingEngine } from "./sleeping-engine.ts";

/** By the module that the configuration names; by default the batch engine over a model. */
export async function startConfiguredEngine(
  { engineModule, engineOptions, model, sleepAfterMs }: ServeConfig,
  onProgress: (loaded: number) => void,
): Promise<HostedEngine> {
  const module = (await import(engineModule ?? moduleBeside(import.meta.url, "./model-engine"))) as {
    startEngine: StartEngine;
  };
  const open = () => module.startEngine({ ...engineOptions, ...(model === undefined ? {} : { model }) }, onProgress);
  return sleepAfterMs === undefined ? open() : SleepingEngine.start({ open, afterMs: sleepAfterMs });
}
