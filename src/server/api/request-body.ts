/** Reading a request's body: checked by a schema as plain values, and kept as Json for what prompts must reproduce. */
import { isDeepStrictEqual } from "node:util";
import { fromJson } from "../../chat/read-json.ts";
import { RequestError } from "../../errors.ts";
import { type Json, JsonObject } from "../../json/parse-json.ts";
import { requestPacer } from "../request-pacer.ts";
import { checkBySchema, type Issue, type ObjectSchema } from "./check-by-schema.ts";

export interface RequestBody<T> {
  readonly value: T;
  /** The same with nothing lost: key order and the spelling of numbers. */
  readonly json: JsonObject;
}

/** Throws a RequestError that names the first place that is wrong. A null at the top counts as absent. */
export async function readBody<T>(schema: ObjectSchema<T>, body: Json | undefined): Promise<RequestBody<T>> {
  if (!(body instanceof JsonObject)) {
    throw new RequestError("The body is no JSON object", {
      code: "request",
      hint: "Send one with the header Content-Type: application/json",
    });
  }
  const json = new JsonObject(body.entries.filter(([, value]) => value !== null));
  // What no schema knows is not looked at: it may be as large as a body.
  const known = json.entries.filter(([key]) => Object.hasOwn(schema.shape, key));
  const pacer = requestPacer();
  const checked = await checkBySchema(schema, known, pacer);
  await pacer.pause();
  if ("value" in checked) return { value: checked.value, json };
  const issue = deepestIssue(checked.issue);
  const where = printPath(issue.path);
  throw new RequestError(`${where === "" ? "The body" : where}: ${issue.message}`, { code: "request", where });
}

/** Of a union that nothing fits, what is wrong with the alternative that fits furthest. */
function deepestIssue(issue: Issue): Issue {
  if (issue.code !== "invalid_union") return issue;
  const inner = issue.errors
    .filter((errors) => errors.length > 0)
    .map((errors) => deepestIssue(errors[0]!))
    .sort((a, b) => b.path.length - a.path.length)[0];
  if (inner === undefined || inner.path.length === 0) return issue;
  return { ...inner, path: [...issue.path, ...inner.path] };
}

function printPath(path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, key) => {
    if (typeof key === "number") return `${text}[${key}]`;
    const name = String(key).slice(0, 80);
    return text === "" ? name : `${text}.${name}`;
  }, "");
}

/** What becomes of a parameter: most are honoured; some change nothing here; the rest is refused by name. */
export type ParameterRule = "honoured" | "ignored" | { readonly refused: string; readonly unless?: readonly string[] };

/** Throws a RequestError for the first parameter that the table refuses, unless its value (as JSON) asks for nothing. */
export function refuseUnsupported(json: JsonObject, rules: Readonly<Record<string, ParameterRule>>): void {
  for (const [name, value] of json.entries) {
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined;
    if (rule === undefined || typeof rule === "string") continue;
    if (rule.unless?.some((text) => isDeepStrictEqual(JSON.parse(text), fromJson(value)))) continue;
    throw new RequestError(`${name} is not supported`, {
      code: "unsupported_parameter",
      where: name,
      hint: rule.refused,
    });
  }
}
