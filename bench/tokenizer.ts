/** Megabytes of text a second, with the real tokenizer of DeepSeek V4. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { Tokenizer } from "../src/tokenizer/tokenizer.ts";
import { medianSeconds, report } from "./measure.ts";

const root = join(import.meta.dirname, "..");

export async function benchTokenizer(): Promise<void> {
  const text = gunzipSync(readFileSync(join(root, "test/data/tokenizer/deepseek-v4-tokenizer.json.gz"))).toString(
    "utf8",
  );
  const parse = await medianSeconds(() => Tokenizer.fromJson(JSON.parse(text)), 3);
  report("read tokenizer.json (6.4 MB)", `${(parse * 1000).toFixed(0)} ms`);
  const tokenizer = Tokenizer.fromJson(JSON.parse(text));

  const english = readFileSync(join(root, "assets/seed-v4/heldout.txt"), "utf8").repeat(40);
  const code = readFileSync(join(root, "src/chat/render-prompt.ts"), "utf8").repeat(80);
  const chinese = "春天来了，小草从地里钻出来，花儿也慢慢地开放。孩子们在公园里放风筝，老人们坐在长椅上聊天。".repeat(
    4000,
  );
  const fresh = Array.from({ length: 60_000 }, (_, i) => `w${((i * 2654435761) % 2 ** 32).toString(36)}`).join(" ");
  for (const [name, value] of Object.entries({ english, chinese, code, "words never seen before": fresh })) {
    const seconds = await medianSeconds(() => tokenizer.encode(value), 3);
    report(name, `${(Buffer.byteLength(value) / 1e6 / seconds).toFixed(1)} MB/s`);
  }
  for (const [name, unit] of [
    ["10 MB line of letters", "abcdefghij"],
    ["10 MB line of signs", "!?-+*/<>=#"],
    ["10 MB line of blanks", "          "],
  ] as const) {
    const line = unit.repeat(1_000_000);
    const [tenth, whole] = [line.slice(0, 1_000_000), line];
    const short = await medianSeconds(() => tokenizer.encode(tenth), 1);
    const long = await medianSeconds(() => tokenizer.encode(whole), 1);
    report(
      name,
      `${(10 / long).toFixed(2)} MB/s; ten times the length takes ${(long / short).toFixed(1)} times as long`,
    );
  }
  const ids = tokenizer.encode(english);
  const decode = await medianSeconds(() => tokenizer.decode(ids), 3);
  report("decode english", `${(Buffer.byteLength(english) / 1e6 / decode).toFixed(1)} MB/s`);
}
