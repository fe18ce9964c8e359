/** The routes of the API in a gateway that is measured: beside them one that tells how long its event loop was held. */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { type ApiOptions, apiRoutes as realRoutes } from "../src/server/api/routes.ts";
import type { Route } from "../src/server/route.ts";
import { tokenRoute } from "../test/serving/token-route.ts";

const delay = monitorEventLoopDelay({ resolution: 1 });

/** POST /longest-stop: milliseconds since the last time it was asked. */
const longestStop: Route = {
  method: "POST",
  path: "/longest-stop",
  scope: "none",
  errors: "plain",
  async handle(call) {
    call.json(200, { milliseconds: delay.max / 1e6 });
    delay.reset();
  },
};

export function apiRoutes(options: ApiOptions): readonly Route[] {
  delay.enable();
  return [...realRoutes(options), tokenRoute, longestStop];
}
