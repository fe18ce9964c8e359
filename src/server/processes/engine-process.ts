/** The engine as a process: it has the model, no open port and no client's bytes; it takes token ids from the gateway's pipe. */
import { rmSync } from "node:fs";
import type { ServeConfig } from "../serve-config.ts";
import { EngineHost } from "./engine-host.ts";
import type { HostedEngine } from "./engine-messages.ts";
import { startConfiguredEngine } from "./start-engine.ts";
import {
  heartbeatMs,
  leaveSignalsToSupervisor,
  sentError,
  type ToChild,
  tellSupervisor,
} from "./supervisor-messages.ts";

let host: EngineHost | undefined;
let engine: HostedEngine | undefined;

async function obey(message: ToChild): Promise<void> {
  switch (message.type) {
    case "start":
      await start(message.config, message.enginePath);
      return;
    case "stop":
      await engine?.close();
      host?.close();
      process.exit(0);
      return;
    case "socket":
    case "reload":
      return;
    default:
      message satisfies never;
  }
}

async function start(config: ServeConfig, path: string): Promise<void> {
  // Of an engine that was killed. Named pipes of Windows vanish with their process.
  if (process.platform !== "win32") rmSync(path, { force: true });
  const started = await EngineHost.listen(path);
  host = started;
  setInterval(() => beat(started), heartbeatMs);
  engine = await startConfiguredEngine(config, (loaded) => {
    started.loaded = loaded;
  });
  started.attach(engine);
  tellSupervisor({ type: "ready" });
}

function beat({ status }: EngineHost): void {
  tellSupervisor({ type: "heartbeat", status });
  // Its device is gone for good: another process gets another one.
  if (status.state === "dead") process.exit(1);
}

leaveSignalsToSupervisor();
process.on("disconnect", () => void obey({ type: "stop", limitMs: 0 }));
process.on("message", (message: ToChild) => {
  obey(message).catch((error) => {
    tellSupervisor({ type: "failed", error: sentError(error) });
  });
});
