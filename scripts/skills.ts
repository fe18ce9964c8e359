/**
 * Asks the embedded model, through `freehold run`, questions of skills that its model card reports, and compares the share of
 * right answers with the card's. Items are drawn here (the card's own are not published), so shares agree within what 50
 * drawings allow. Run: node scripts/skills.ts
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";

interface Item {
  readonly question: string;
  readonly isRight: (answer: string) => boolean;
}

interface Skill {
  readonly name: string;
  readonly reported: number;
  readonly think: "off" | "low";
  readonly items: readonly Item[];
}

const itemsPerSkill = 50;
let state = 20261125;
function below(limit: number): number {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * limit);
}

/** Different items, as the maker draws them. */
function draw(make: () => Item): Item[] {
  const items = new Map<string, Item>();
  while (items.size < itemsPerSkill) {
    const item = make();
    items.set(item.question, item);
  }
  return [...items.values()];
}

function arithmetic(sign: "+" | "-" | "*", first: () => number, second: (a: number) => number): Item[] {
  return draw(() => {
    const a = first();
    const b = second(a);
    const result = sign === "+" ? a + b : sign === "-" ? a - b : a * b;
    const question = `What is ${a} ${sign} ${b}?`;
    return { question, isRight: (answer) => new RegExp(`= ${result}\\.?$`).test(answer.trim()) };
  });
}

const twoDigits = () => 10 + below(90);
const skills: readonly Skill[] = [
  { name: "add", reported: 0.76, think: "off", items: arithmetic("+", twoDigits, twoDigits) },
  { name: "add (thinking)", reported: 0.82, think: "low", items: arithmetic("+", twoDigits, twoDigits) },
  { name: "sub", reported: 0.66, think: "off", items: arithmetic("-", twoDigits, (a) => below(a)) },
  { name: "sub (thinking)", reported: 0.9, think: "low", items: arithmetic("-", twoDigits, (a) => below(a)) },
  {
    name: "mul_small",
    reported: 1,
    think: "off",
    items: arithmetic(
      "*",
      () => 2 + below(8),
      () => 2 + below(8),
    ),
  },
];

const program = join(import.meta.dirname, "../bin/freehold.js");
const run = promisify(execFile);

for (const { name, reported, think, items } of skills) {
  let right = 0;
  for (const { question, isRight } of items) {
    const { stdout } = await run(process.execPath, [
      program,
      "run",
      "--think",
      think,
      "--temperature",
      "0",
      "--json",
      question,
    ]);
    if (isRight((JSON.parse(stdout) as { text: string }).text)) right++;
  }
  const share = right / items.length;
  // Two standard deviations of the difference of two shares of 50.
  const allowed = 2 * Math.sqrt((2 * Math.max(0.02, reported * (1 - reported))) / itemsPerSkill);
  const verdict = Math.abs(share - reported) <= allowed ? "agrees" : "DIFFERS";
  console.log(
    `${name.padEnd(16)} ${right}/${items.length} = ${share.toFixed(2)}, reported ${reported.toFixed(2)}: ${verdict}`,
  );
}
