/**
 * Finds the route of a request. Paths are compared segment by segment; "{model}" takes any one segment. A path that exists for
 * other methods is a 405 that names them; one that does not exist is a 404 in the shape of the API that it resembles most.
 */
import { HttpError } from "../http-error.ts";
import type { ErrorDialect, Route } from "../route.ts";

export interface RouteMatch {
  readonly route: Route;
  readonly parameters: Readonly<Record<string, string>>;
}

interface Entry {
  readonly segments: readonly string[];
  readonly routes: Map<string, Route>;
}

export class Router {
  readonly #exact = new Map<string, Entry>();
  readonly #patterns: Entry[] = [];

  constructor(routes: readonly Route[]) {
    for (const route of routes) this.#add(route);
  }

  /** Throws an HttpError: 404, or 405 with Allow. */
  match(method: string, path: string): RouteMatch {
    const segments = segmentsOf(path);
    const entry = this.#find(segments);
    if (entry === undefined) {
      throw new HttpError(404, `There is no ${path}`, { code: "not-found", hint: "GET / lists what there is" });
    }
    const route = entry.routes.get(method) ?? (method === "HEAD" ? entry.routes.get("GET") : undefined);
    if (route === undefined) throw methodNotAllowed(method, path, allowedMethods(entry));
    return { route, parameters: parametersOf(entry.segments, segments) };
  }

  /** Methods that a path takes; undefined where there is no such path. */
  methods(path: string): readonly string[] | undefined {
    const entry = this.#find(segmentsOf(path));
    return entry && allowedMethods(entry);
  }

  /** In whose shape a fault on this path is answered, also where there is no route. */
  dialect(path: string): ErrorDialect {
    const segments = segmentsOf(path);
    let best: { readonly common: number; readonly dialect: ErrorDialect } = { common: 0, dialect: "openai" };
    for (const entry of [...this.#exact.values(), ...this.#patterns]) {
      const common = commonSegments(entry.segments, segments);
      if (common > best.common) best = { common, dialect: entry.routes.values().next().value!.errors };
    }
    // Every API stands under /v1: that alone says nothing.
    return best.common === 1 && segments[0] === "v1" ? "openai" : best.dialect;
  }

  #add(route: Route): void {
    const segments = segmentsOf(route.path);
    const key = segments.join("/");
    const isPattern = segments.some(isParameter);
    let entry = isPattern ? this.#patterns.find((known) => known.segments.join("/") === key) : this.#exact.get(key);
    if (entry === undefined) {
      entry = { segments, routes: new Map() };
      if (isPattern) this.#patterns.push(entry);
      else this.#exact.set(key, entry);
    }
    if (entry.routes.has(route.method)) throw new Error(`Two routes for ${route.method} ${route.path}`);
    entry.routes.set(route.method, route);
  }

  #find(segments: readonly string[]): Entry | undefined {
    return this.#exact.get(segments.join("/")) ?? this.#patterns.find((entry) => fits(entry.segments, segments));
  }
}

/** "/v1/models/" and "/v1/models" are one path. */
function segmentsOf(path: string): string[] {
  return path.replace(/^\//, "").replace(/\/$/, "").split("/");
}

function isParameter(segment: string): boolean {
  return segment.startsWith("{") && segment.endsWith("}");
}

function fits(pattern: readonly string[], segments: readonly string[]): boolean {
  if (pattern.length !== segments.length) return false;
  return pattern.every((part, i) => (isParameter(part) ? segments[i] !== "" : part === segments[i]));
}

function parametersOf(pattern: readonly string[], segments: readonly string[]): Record<string, string> {
  const parameters: Record<string, string> = {};
  pattern.forEach((part, i) => {
    if (isParameter(part)) parameters[part.slice(1, -1)] = decodeSegment(segments[i]!);
  });
  return parameters;
}

function decodeSegment(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch (cause) {
    throw new HttpError(400, `The path has a wrong escape: ${segment}`, { code: "bad-path", cause });
  }
}

function commonSegments(pattern: readonly string[], segments: readonly string[]): number {
  let common = 0;
  while (common < pattern.length && common < segments.length && pattern[common] === segments[common]) common++;
  return common;
}

function allowedMethods({ routes }: Entry): string[] {
  const methods = new Set(routes.keys());
  if (methods.has("GET")) methods.add("HEAD");
  return [...methods, "OPTIONS"];
}

function methodNotAllowed(method: string, path: string, allowed: readonly string[]): HttpError {
  return new HttpError(405, `${path} does not take ${method}`, {
    code: "method-not-allowed",
    hint: `It takes ${allowed.join(", ")}`,
    headers: { allow: allowed.join(", ") },
  });
}
