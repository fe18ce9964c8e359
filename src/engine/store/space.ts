/** Which records and which segments go when the store needs room. */
import type { RecordType } from "./record.ts";
import type { RecordIndex, StoredRecord } from "./record-index.ts";
import type { Segment } from "./segment.ts";

/** A segment with less alive than this is copied and removed. */
const leastLive = 0.5;
/** Forgetting goes on to this share of the limit, so that it is not needed again at once. */
const trimTo = 0.85;

/** Forgets what was used longest ago (frontiers, and with the last of a path its blocks) until the index names fewer bytes. */
export function trimIndex(index: RecordIndex, mostBytes: number): void {
  index.prune();
  let bytes = index.liveBytes;
  if (bytes <= mostBytes) return;
  const byUse = [...index.frontiers.values(), ...index.entries.values()].sort((a, b) => a.lastUse - b.lastUse);
  const share = Math.max(1, Math.ceil(byUse.length / 32));
  for (let first = 0; first < byUse.length && bytes > trimTo * mostBytes; first += share) {
    for (const record of byUse.slice(first, first + share)) index.remove(record);
    index.prune();
    bytes = index.liveBytes;
  }
}

/** Forgets the entries of one durable map that were used longest ago, beyond a number of bytes. */
export function trimEntries(index: RecordIndex, ofType: RecordType, mostBytes: number): void {
  let bytes = 0;
  const entries: StoredRecord[] = [...index.entries.values()]
    .filter(({ type }) => type === ofType)
    .sort((a, b) => b.lastUse - a.lastUse);
  for (const entry of entries) {
    bytes += entry.bytes;
    if (bytes > mostBytes) index.remove(entry);
  }
}

/** The sealed segment that is to be collected next, if any is worth it. */
export function nextVictim(
  segments: Iterable<Segment>,
  urgent: ReadonlySet<Segment>,
  isOverBudget: boolean,
): Segment | undefined {
  const sealed = [...segments].filter(({ isSealed }) => isSealed);
  const first = sealed.find((segment) => urgent.has(segment));
  if (first !== undefined) return first;
  const share = ({ liveBytes, size }: Segment) => liveBytes / size;
  const least = sealed.reduce<Segment | undefined>(
    (best, segment) => (best === undefined || share(segment) < share(best) ? segment : best),
    undefined,
  );
  if (least === undefined) return undefined;
  const worthIt = share(least) < leastLive || (isOverBudget && share(least) < 0.98);
  return worthIt ? least : undefined;
}
