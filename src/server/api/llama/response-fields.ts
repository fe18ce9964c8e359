/** `response_fields` of llama-server: only these parts of an answer, "a/b" reaching into objects; what is not there is left out. */
export function pickFields(answer: object, fields: readonly string[] | undefined): object {
  if (fields === undefined || fields.length === 0) return answer;
  const picked = fields.map((path): [string, unknown] => [path, path.split("/").reduce<unknown>(member, answer)]);
  return Object.fromEntries(picked.filter(([, value]) => value !== undefined));
}

function member(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) return undefined;
  return (value as Record<string, unknown>)[name];
}
