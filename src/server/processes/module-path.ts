/** The URL of a module of ours, for another process to import: from source in a checkout, from dist/ in the package. */
export function moduleBeside(importer: string, name: string): string {
  return new URL(`${name}${importer.endsWith(".ts") ? ".ts" : ".js"}`, importer).href;
}
