/** The child process of store-kills.ts: writes to a store without end, and tells on its output what is acknowledged. */
import { KvStore } from "../../src/engine/store/kv-store.ts";
import { randomNumbers } from "../small-model.ts";
import { entryOf, putConversation } from "../store-content.ts";

const [directory, seed, segmentBytes] = process.argv.slice(2);
const random = randomNumbers(Number(seed));
const store = await KvStore.open({
  directory: directory!,
  budgetBytes: 1 << 30,
  segmentBytes: Number(segmentBytes),
  reserveBytes: 0,
  now: () => performance.now(),
});
if (store.state !== "on") throw new Error(store.reason);
console.log("ready");
for (let version = 1; ; version++) {
  const isEntry = random() < 0.6;
  const what = isEntry ? `entry ${Math.floor(random() * 20)}` : `conversation ${Math.floor(random() * 60)}`;
  const number = isEntry ? Number(seed) * 100_000 + version : 100 + Math.floor(random() * 900);
  const isSafe = await store.group(async (put) => {
    if (isEntry) await put(entryOf(what, number));
    else await putConversation(store, put, Number(what.split(" ")[1]), number);
    console.log("writing"); // records are there, their COMMIT is not
  });
  if (!isSafe) throw new Error(store.reason);
  console.log(`${what} ${number}`);
}
