/** Names of tools in a model's output, against those that it was given. */

/** The known name that was meant: the same, or the same but for case, signs and a namespace in front. */
export function repairToolName(name: string, known: ReadonlySet<string>): string | undefined {
  if (known.has(name)) return name;
  const wanted = bare(name);
  const alike = [...known].filter((candidate) => bare(candidate) === wanted);
  if (alike.length === 1) return alike[0];
  const tail = bare(name.split(/[.:/]+|__/).at(-1) ?? "");
  const byTail = [...known].filter((candidate) => tail !== "" && bare(candidate) === tail);
  return byTail.length === 1 ? byTail[0] : undefined;
}

function bare(name: string): string {
  return name.toLowerCase().replaceAll(/[^\p{L}\p{N}]/gu, "");
}
