/** Where the server keeps what is worth more than one run: computed prompts (kv/), and turns that clients send back shortened (turns/). */
import { homedir } from "node:os";
import { join } from "node:path";

/** Where the operating system wants caches. */
export function defaultCacheDirectory(): string {
  const { XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  if (process.platform === "win32" && LOCALAPPDATA) return join(LOCALAPPDATA, "freehold");
  if (process.platform === "darwin") return join(homedir(), "Library", "Caches", "freehold");
  return join(XDG_CACHE_HOME || join(homedir(), ".cache"), "freehold");
}
