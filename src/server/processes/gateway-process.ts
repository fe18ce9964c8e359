/** The gateway as a process: it is given a bound socket and a path to the engine, and knows nothing that a model is made of. */
import { EngineClient } from "./engine-client.ts";
import { GatewayHost } from "./gateway-host.ts";
import {
  heartbeatMs,
  leaveSignalsToSupervisor,
  sentError,
  type ToChild,
  tellSupervisor,
} from "./supervisor-messages.ts";

let host: GatewayHost | undefined;
let engine: EngineClient | undefined;
const handles: { clients: unknown[]; admin?: unknown } = { clients: [] };

async function obey(message: ToChild, handle: unknown): Promise<void> {
  switch (message.type) {
    case "socket":
      if (message.use === "clients") handles.clients.push(handle);
      else handles.admin = handle;
      return;
    case "start": {
      const { config, enginePath, version } = message;
      const client = new EngineClient(
        enginePath,
        config.revivalMs === undefined ? {} : { patienceMs: config.revivalMs },
      );
      engine = client;
      const parts = { engine: client, engineRestarts: () => client.losses, version };
      host = await GatewayHost.start(config, handles.clients.length > 0 ? { ...parts, handles } : parts);
      setInterval(() => tellSupervisor({ type: "heartbeat" }), heartbeatMs);
      tellSupervisor({ type: "ready", url: host.url, ...(host.adminUrl && { adminUrl: host.adminUrl }) });
      await client.attached;
      tellSupervisor({ type: "attached" });
      return;
    }
    case "reload":
      host?.reload(message.config);
      return;
    case "stop":
      await host?.gateway.drain(message.limitMs);
      await host?.close();
      engine?.close();
      process.exit(0);
      return;
    default:
      message satisfies never;
  }
}

leaveSignalsToSupervisor();
process.on("disconnect", () => process.exit(1));
process.on("message", (message: ToChild, handle: unknown) => {
  obey(message, handle).catch((error) => {
    if (message.type === "reload")
      tellSupervisor({ type: "warning", message: `Not reloaded: ${sentError(error).message}` });
    else tellSupervisor({ type: "failed", error: sentError(error) });
  });
});
