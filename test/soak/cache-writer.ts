/** The child process of cache-kills.ts: computes conversations without end, and tells on its output which are on disk. */

import { computeConversation, openOnDisk } from "../cached-conversations.ts";
import { randomNumbers, type SmallModelName, smallConfigs, smallModel } from "../small-model.ts";

const [directory, model, seed] = process.argv.slice(2);
const random = randomNumbers(Number(seed));
const { runner } = await smallModel(smallConfigs[model as SmallModelName]);
const cache = await openOnDisk(runner, directory!);
if (cache.counters.diskState !== "on") throw new Error(cache.diskReason);
console.log("ready");
for (;;) {
  const [c, length] = [Math.floor(random() * 60), 60 + Math.floor(random() * 500)];
  await computeConversation(cache, runner, c, length);
  console.log("writing"); // the write goes on beside the next computation
  await cache.flush();
  if (cache.droppedWrites > 0) throw new Error("a write was dropped");
  console.log(`${c} ${length}`);
}
