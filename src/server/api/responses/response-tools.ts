/**
 * Tools of a Responses request. Functions are offered as they are, alone or in a namespace; a custom tool, which takes free
 * text, becomes a function with one text; tools that OpenAI's servers run themselves are accepted and not offered.
 */
import type { Tool } from "../../../chat/chat-request.ts";
import type { Dialect } from "../../../chat/dialect.ts";
import { Fields, toJson } from "../../../chat/read-json.ts";
import { fullToolName } from "../../../chat/tool-block.ts";
import type { Json } from "../../../json/parse-json.ts";

export interface ResponseTool extends Tool {
  readonly isCustom: boolean;
}

export function readResponseTools(list: readonly Json[]): ResponseTool[] {
  return list.flatMap((item, i) => readTool(new Fields(item, `tools[${i}]`), undefined));
}

/** The tools by the names that the model knows them by. */
export function toolsByName(tools: readonly ResponseTool[], dialect: Dialect): ReadonlyMap<string, ResponseTool> {
  return new Map(tools.map((tool) => [fullToolName(tool, dialect), tool]));
}

function readTool(fields: Fields, namespace: Tool["namespace"]): ResponseTool[] {
  switch (fields.string("type")) {
    case "function": {
      const parameters = fields.get("parameters");
      return [
        {
          name: fields.required("name", fields.string("name")),
          description: fields.string("description") ?? "",
          parameters: parameters ?? toJson({}, "parameters"),
          hasParameters: parameters !== undefined,
          // In this API strict is the default, and only constrained decoding could promise it: schemas stay as they are.
          strict: false,
          namespace,
          isCustom: false,
        },
      ];
    }
    case "custom":
      return [customTool(fields, namespace)];
    case "namespace": {
      const inner = {
        name: fields.required("name", fields.string("name")),
        description: fields.string("description") ?? "",
      };
      return (fields.list("tools") ?? []).flatMap((item, i) =>
        readTool(new Fields(item, `${fields.path("tools")}[${i}]`), inner),
      );
    }
    default:
      return [];
  }
}

function customTool(fields: Fields, namespace: Tool["namespace"]): ResponseTool {
  const format = fields.fields("format");
  const definition = format?.string("definition");
  const grammar = definition === undefined ? "" : `\n\nThe input follows this grammar:\n${definition}`;
  return {
    name: fields.required("name", fields.string("name")),
    description: (fields.string("description") ?? "") + grammar,
    parameters: toJson(
      { type: "object", properties: { input: { type: "string" } }, required: ["input"] },
      "parameters",
    ),
    hasParameters: true,
    strict: false,
    namespace,
    isCustom: true,
  };
}

/** The free text of a custom tool, out of the arguments of the function that stands for it. */
export function customInput(argumentsText: string): string {
  const value: unknown = JSON.parse(argumentsText);
  const input = (value as { input?: unknown }).input;
  return typeof input === "string" ? input : argumentsText;
}
