/** Files that hold one item or a list of them: a list gives a list of results, with an error in place of an item that fails. */
import { describeError, exitStatus, type Terminal } from "./terminal.ts";

/**
 * Works on each item and prints the results. A single item that fails throws; a failing one of a list is an `{error}` in its
 * place, and the exit status is 1.
 */
export async function printResults<Item>(
  items: Item | readonly Item[],
  isList: boolean,
  terminal: Terminal,
  work: (item: Item) => unknown,
  plain: (result: never) => string,
): Promise<void> {
  if (!isList) {
    const result = work(items as Item);
    if (terminal.json) await terminal.writeJson(result);
    else await terminal.write(`${plain(result as never)}\n`);
    return;
  }
  let failed = false;
  const results = (items as readonly Item[]).map((item) => {
    try {
      return work(item);
    } catch (error) {
      failed = true;
      const { code, message, hint } = describeError(error);
      return { error: { code, message, hint: hint ?? null } };
    }
  });
  await terminal.writeJson(results);
  if (failed) process.exitCode = exitStatus.failed;
}
