/** The part of the prompt that tells a model which tools there are, and how calls are written in the history (DSML). */
import { RequestError } from "../errors.ts";
import { type Json, JsonNumber, JsonObject, parseJson } from "../json/parse-json.ts";
import type { HistoryCall, Tool } from "./chat-request.ts";
import { type Dialect, token } from "./dialect.ts";
import { printJson, withoutDuplicates } from "./print-json.ts";
import type { PromptBuilder } from "./prompt.ts";

/** The instructions with one line of schema a tool. They end in one newline. */
export function renderToolBlock(prompt: PromptBuilder, tools: readonly Tool[], dialect: Dialect): void {
  const { dsml, think, endThink } = token;
  const [calls, call, parameter] = [dialect.tags.calls, dialect.tags.call, dialect.tags.parameter].map(
    (tag) => dsml + tag,
  );
  prompt.mixed(
    `## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by writing a "<${calls}>" block like the following:

<${calls}>
<${call} name="$TOOL_NAME">
<${parameter} name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</${parameter}>
...
</${call}>
<${call} name="$TOOL_NAME2">
...
</${call}>
</${calls}>

String parameters should be specified as is and set \`string="true"\`. For all other types (numbers, booleans, arrays, objects), pass the value in JSON format and set \`string="false"\`.

If thinking_mode is enabled (triggered by ${think}), you MUST output your complete reasoning inside ${think}...${endThink} BEFORE any tool calls or final response.

Otherwise, output directly after ${endThink} with tool calls or final response.

### Available Tool Schemas

`,
    [dsml, think, endThink],
  );
  prompt.text(schemaLines(tools, dialect));
  prompt.text("\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.\n");
}

export function schemaLines(tools: readonly Tool[], dialect: Dialect): string {
  return tools.map((tool) => schemaLine(tool, dialect)).join("\n");
}

/** The name that the model knows a tool by. */
export function fullToolName({ name, namespace }: Pick<Tool, "name" | "namespace">, dialect: Dialect): string {
  return namespace === undefined ? name : `${namespace.name}${dialect.namespaceSeparator}${name}`;
}

function schemaLine(tool: Tool, dialect: Dialect): string {
  const { description, parameters, strict, namespace } = tool;
  const fullName = fullToolName(tool, dialect);
  const isDescribed = namespace !== undefined && namespace.description !== "" && dialect.name === "v4.1";
  const fullDescription = isDescribed ? `${namespace.description}\n${description}` : description;
  const schema = new JsonObject([
    ["name", fullName],
    ["description", fullDescription],
    ["parameters", strict ? completeSchema(parameters) : parameters],
  ]);
  return printJson(schema, dialect);
}

/** A strict tool's schema: each object in it allows nothing but its properties and requires all of them. */
function completeSchema(value: Json): Json {
  if (Array.isArray(value)) return (value as readonly Json[]).map(completeSchema);
  if (!(value instanceof JsonObject)) return value;
  const entries = value.entries.map(([key, item]) => [key, completeSchema(item)] as const);
  if (value.get("type") !== "object") return new JsonObject(entries);
  const properties = value.get("properties");
  const required = properties instanceof JsonObject ? withoutDuplicates(properties).map(([key]) => key) : [];
  return new JsonObject([
    ...entries.filter(([key]) => key !== "additionalProperties" && key !== "required"),
    ["additionalProperties", false],
    ["required", required],
  ]);
}

/** Calls that are rendered in one step: a millisecond or two. */
const callsAtOnce = 64;

/** The calls of an earlier answer, as the model would have written them. */
export function* renderCalls(
  prompt: PromptBuilder,
  calls: readonly HistoryCall[],
  dialect: Dialect,
): Generator<undefined, void> {
  const open = (tag: string, attributes = "") => prompt.text("<").special(token.dsml).text(`${tag}${attributes}>`);
  const close = (tag: string) => prompt.text("</").special(token.dsml).text(`${tag}>`);
  const { tags } = dialect;
  prompt.text("\n\n");
  open(tags.calls);
  for (const [i, { name, arguments: text }] of calls.entries()) {
    if (i % callsAtOnce === callsAtOnce - 1) yield;
    prompt.text("\n");
    open(tags.call, ` name="${name}"`);
    const parameters = callParameters(text);
    if (parameters.length === 0) prompt.text(dialect.emptyCall);
    for (const [key, value] of parameters) {
      const isString = typeof value === "string";
      prompt.text("\n");
      open(tags.parameter, ` name="${key}" string="${isString}"`);
      prompt.text(isString ? value : printJson(value, dialect));
      close(tags.parameter);
    }
    if (parameters.length > 0) prompt.text("\n");
    close(tags.call);
  }
  prompt.text("\n");
  close(tags.calls);
}

/** Arguments that are not a JSON object become one string parameter with their text. */
function callParameters(text: string): [string, Json][] {
  if (!/^\s*\{/.test(text)) return [["arguments", text]]; // an error for each of many calls would take its time
  try {
    const value = parseJson(text);
    if (value instanceof JsonObject && isRepresentable(value)) return withoutDuplicates(value);
  } catch (error) {
    if (!(error instanceof RequestError || (error as { code?: string }).code === "json")) throw error;
  }
  return [["arguments", text]];
}

/** JSON whose numbers a double can hold and whose texts UTF-8 can. */
function isRepresentable(value: Json): boolean {
  if (typeof value === "string") return value.isWellFormed();
  if (value instanceof JsonNumber) return Number.isFinite(value.value);
  if (value instanceof JsonObject)
    return value.entries.every(([key, item]) => key.isWellFormed() && isRepresentable(item));
  return Array.isArray(value) ? (value as readonly Json[]).every(isRepresentable) : true;
}
