/** The routes of the API as they are, or with one feature broken on purpose (FREEHOLD_SHIM_BREAK). */
import { type ApiOptions, apiRoutes as realRoutes } from "../../src/server/api/routes.ts";
import type { Call, Route } from "../../src/server/route.ts";

export const breakable = ["auth", "stream", "usage", "stop", "timings", "errors"] as const;

export function apiRoutes({ broken, ...options }: ApiOptions & { broken?: string }): Route[] {
  const routes = realRoutes(options);
  if (broken === "errors") return routes.map(withoutErrors);
  const mutate = mutations[broken ?? ""];
  if (mutate === undefined) return routes;
  return routes.map((route) => ({ ...route, handle: (call, services) => route.handle(mutate(call), services) }));
}

/** Each breaks what a client sees, whichever route made it. */
const mutations: Readonly<Record<string, (call: Call) => Call>> = {
  stream: (call) => withAnswers(call, { event: () => undefined }),
  usage: (call) => withAnswers(call, { value: (value) => replaceNumbers(value, /tokens/) }),
  timings: (call) => withAnswers(call, { value: (value) => dropKey(value, "timings") }),
  stop: (call) =>
    withAnswers(call, {
      value: (value) => ["finish_reason", "stop_reason", "stop_type"].reduce<unknown>(dropKey, value),
    }),
};

/** Whatever is wrong is answered as if it were right. */
function withoutErrors(route: Route): Route {
  return {
    ...route,
    async handle(call, services) {
      try {
        await route.handle(call, services);
      } catch {
        call.json(200, {});
      }
    },
  };
}

interface Change {
  value?(value: unknown): unknown;
  event?(data: string): string | undefined;
}

function withAnswers(call: Call, change: Change): Call {
  const value = change.value ?? ((same: unknown) => same);
  const event =
    change.event ?? ((data: string) => (data === "[DONE]" ? data : JSON.stringify(value(JSON.parse(data)))));
  return new Proxy(call, {
    get(target, name) {
      if (name === "json") {
        return (status: number, answer: unknown, headers?: Record<string, string>) =>
          target.json(status, value(answer), headers);
      }
      if (name === "openStream") return () => changedStream(target.openStream(), event);
      const member = Reflect.get(target, name, target) as unknown;
      return typeof member === "function" ? member.bind(target) : member;
    },
  });
}

function changedStream(stream: ReturnType<Call["openStream"]>, change: (data: string) => string | undefined) {
  return new Proxy(stream, {
    get(target, name) {
      if (name === "send") {
        return (data: string, event?: string) => {
          const changed = change(data);
          if (changed !== undefined) target.send(changed, event);
        };
      }
      const member = Reflect.get(target, name, target) as unknown;
      return typeof member === "function" ? member.bind(target) : member;
    },
  });
}

function replaceNumbers(value: unknown, keys: RegExp): unknown {
  return mapMembers(value, (key, member) => (keys.test(key) && typeof member === "number" ? 0 : member));
}

function dropKey(value: unknown, dropped: string): unknown {
  return mapMembers(value, (key, member) => (key === dropped ? undefined : member));
}

function mapMembers(value: unknown, change: (key: string, member: unknown) => unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => mapMembers(item, change));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => [key, change(key, mapMembers(member, change))]),
  );
}
