/** The median of some runs, in seconds, after one that warms up. */
export async function medianSeconds(work: () => unknown, runs = 5): Promise<number> {
  await work();
  const seconds: number[] = [];
  for (let i = 0; i < runs; i++) {
    const started = performance.now();
    await work();
    seconds.push((performance.now() - started) / 1000);
  }
  return seconds.sort((a, b) => a - b)[Math.floor(runs / 2)]!;
}

/** One line: a name and its figures. */
export function report(name: string, figures: string): void {
  console.log(`  ${name.padEnd(34)} ${figures}`);
}
