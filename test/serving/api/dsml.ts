/** Outputs with calls, as a model writes them. */
export const dsml = "｜DSML｜";

export function callOf(name: string, parameters: Readonly<Record<string, unknown>> = {}): string {
  const lines = Object.entries(parameters).map(([key, value]) => {
    const isString = typeof value === "string";
    return `<${dsml}parameter name="${key}" string="${isString}">${isString ? value : JSON.stringify(value)}</${dsml}parameter>\n`;
  });
  return `<${dsml}invoke name="${name}">\n${lines.join("")}</${dsml}invoke>\n`;
}

export function blockOf(...calls: string[]): string {
  return `\n\n<${dsml}tool_calls>\n${calls.join("")}</${dsml}tool_calls>`;
}
