/**
 * A body checked by its schema, a part of a long list at a time: thousands of messages would hold the event loop for 30 to 60 ms. What
 * comes of it is what the schema makes of the whole.
 */
import { z } from "zod";
import { fromJson } from "../../chat/read-json.ts";
import type { Pacer } from "../../engine/pacer.ts";
import { type Json, JsonObject } from "../../json/parse-json.ts";

export type Issue = z.core.$ZodIssue;
export type ObjectSchema<T> = z.ZodObject & z.ZodType<T>;
type ArrayType = z.core.$ZodArray;
type Checked<T> = { readonly value: T } | { readonly issue: Issue };

/** Elements of lists that are checked at once, those of lists in them included: one to three milliseconds. */
const atOnce = 512;

/** What the schema makes of the fields of a body, or the first thing that is wrong with them. */
export async function checkBySchema<T>(
  schema: ObjectSchema<T>,
  fields: readonly (readonly [string, Json])[],
  pacer: Pacer,
): Promise<Checked<T>> {
  const long = new Map<string, { readonly list: readonly Json[]; readonly types: readonly ArrayType[] }>();
  const short: (readonly [string, Json])[] = [];
  for (const [key, value] of new Map(fields)) {
    const type = Object.hasOwn(schema.shape, key) ? schema.shape[key] : undefined;
    const types = type !== undefined && Array.isArray(value) && isLong(value) ? arraysIn(type) : [];
    if (types.length > 0) long.set(key, { list: value as readonly Json[], types });
    else short.push([key, value]);
  }
  const others = long.size === 0 ? schema : withoutFields(schema, long.keys());
  const parsed = others.safeParse(fromJson(new JsonObject(short)));
  if (!parsed.success) return { issue: parsed.error.issues[0]! };
  const lists: Record<string, unknown> = {};
  for (const [key, { list, types }] of long) {
    const checked = await checkAsOneOf(types, list, pacer);
    if ("issue" in checked) return { issue: { ...checked.issue, path: [key, ...checked.issue.path] } };
    lists[key] = checked.value;
  }
  return { value: { ...parsed.data, ...lists } as T }; // each field by its part of the schema
}

function withoutFields(schema: z.ZodObject, keys: Iterable<string>): z.ZodObject {
  const mask: Record<string, true> = {};
  for (const key of keys) mask[key] = true;
  return schema.omit(mask as Parameters<typeof schema.omit>[0]); // their names are known to the schema alone
}

/** The types among those that a value may have which are lists: of them a part is right where the whole is. */
function arraysIn(schema: z.core.$ZodType): readonly ArrayType[] {
  const { def } = schema._zod;
  const inner = def as Partial<{ innerType: z.core.$ZodType; options: readonly z.core.$ZodType[] }>;
  switch (def.type) {
    case "optional":
    case "nullable":
      return arraysIn(inner.innerType!);
    case "union":
      return inner.options!.flatMap(arraysIn);
    case "array":
      return (def.checks ?? []).every((check) => check._zod.def.check === "min_length") ? [schema as ArrayType] : [];
    default:
      return [];
  }
}

/** A list by the first of some types that takes all of it; where none does, what is wrong with it by the one that goes furthest. */
async function checkAsOneOf(
  types: readonly ArrayType[],
  list: readonly Json[],
  pacer: Pacer,
): Promise<Checked<unknown[]>> {
  const issues: Issue[] = [];
  for (const type of types) {
    const checked = await checkList(type, list, pacer);
    if ("value" in checked) return checked;
    issues.push(checked.issue);
  }
  const index = ({ path }: Issue) => path[0] as number;
  return { issue: issues.reduce((furthest, issue) => (index(issue) > index(furthest) ? issue : furthest)) };
}

async function checkList(type: ArrayType, list: readonly Json[], pacer: Pacer): Promise<Checked<unknown[]>> {
  const value: unknown[] = [];
  for (let at = 0; at < list.length; ) {
    await pacer.pause();
    const end = endOfPart(list, at);
    const { element } = type._zod.def;
    const first = list[at]!;
    const part: Checked<unknown[]> =
      end === at + 1 && element instanceof z.ZodObject && first instanceof JsonObject
        ? listOfOne(await checkBySchema(element, first.entries, pacer))
        : wholePart(type, list.slice(at, end));
    if ("issue" in part) {
      const [index, ...rest] = part.issue.path as [number, ...PropertyKey[]];
      return { issue: { ...part.issue, path: [at + index, ...rest] } };
    }
    for (const element of part.value) value.push(element);
    at = end;
  }
  return { value };
}

function wholePart(type: ArrayType, part: readonly Json[]): Checked<unknown[]> {
  const parsed = z.core.safeParse(type, part.map(fromJson));
  return parsed.success ? { value: parsed.data as unknown[] } : { issue: parsed.error.issues[0]! };
}

function listOfOne(checked: Checked<unknown>): Checked<unknown[]> {
  if ("value" in checked) return { value: [checked.value] };
  return { issue: { ...checked.issue, path: [0, ...checked.issue.path] } };
}

function isLong(list: readonly Json[]): boolean {
  return list.reduce((sum: number, element) => sum + weightOf(element), 0) > atOnce;
}

/** As many elements as are checked at once, by what they hold: those of their lists count. */
function endOfPart(list: readonly Json[], begin: number): number {
  let weight = 0;
  for (let at = begin; at < list.length; at++) {
    weight += weightOf(list[at]!);
    if (weight > atOnce) return Math.max(at, begin + 1);
  }
  return list.length;
}

function weightOf(element: Json): number {
  const held = element instanceof JsonObject ? element.entries.map(([, value]) => value) : [element];
  return held.reduce<number>((sum, value) => sum + (Array.isArray(value) ? value.length : 0), 1);
}
