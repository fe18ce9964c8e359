/** The engine that a configuration names. */
import type { ServeConfig } from "../serve-config.ts";
import type { HostedEngine, StartEngine } from "./engine-messages.ts";
import { moduleBeside } from "./module-path.ts";

/** By the module that the configuration names; by default the batch engine over a model. */
export async function startConfiguredEngine(
  { engineModule, engineOptions, model }: ServeConfig,
  onProgress: (loaded: number) => void,
): Promise<HostedEngine> {
  const module = (await import(engineModule ?? moduleBeside(import.meta.url, "./model-engine"))) as {
    startEngine: StartEngine;
  };
  return module.startEngine({ ...engineOptions, ...(model === undefined ? {} : { model }) }, onProgress);
}
