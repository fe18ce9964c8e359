// The arrows between folders, as in ARCHITECTURE.md: what a folder of src/ may import, itself, errors.ts and finish-steps.ts aside.
const arrows = {
  json: [],
  tensor: [],
  quant: [],
  tokenizer: [],
  media: [],
  format: ["json", "quant"],
  model: ["tensor", "quant"],
  device: ["tensor", "quant"],
  chat: ["json"],
  engine: ["chat", "device", "format", "json", "media", "model", "quant", "tensor", "tokenizer"],
  server: ["chat", "engine", "json", "media", "tokenizer"],
  cli: ["chat", "engine", "format", "json", "media", "model", "server", "tokenizer"],
};

/** Folders that may use modules of Node; everything else also runs in a browser. */
const nodeFolders = ["engine", "media", "server", "cli"];

const folderRules = Object.entries(arrows).map(([folder, allowed]) => ({
  name: `${folder}-imports-only-its-own`,
  comment: `src/${folder} may import ${allowed.join(", ") || "nothing of ours"}`,
  severity: "error",
  from: { path: `^src/${folder}/` },
  to: { path: "^src/", pathNot: `^src/((errors|finish-steps)\\.ts$|(${[folder, ...allowed].join("|")})/)` },
}));

// biome-ignore lint/style/noDefaultExport: the tool reads the default export
export default {
  forbidden: [
    ...folderRules,
    {
      name: "every-folder-has-its-arrows",
      comment: "a new folder under src/ is added to the table above",
      severity: "error",
      from: { path: "^src/", pathNot: `^src/([^/]+\\.ts$|(${Object.keys(arrows).join("|")})/)` },
      to: {},
    },
    {
      name: "node-modules-in-engine-media-server-and-cli-only",
      severity: "error",
      from: { path: "^src/", pathNot: `^src/(${nodeFolders.join("|")})/` },
      to: { dependencyTypes: ["core"] },
    },
    {
      name: "no-package-outside-the-command-line-the-server-and-media",
      comment: "what Freehold exists for is its own",
      severity: "error",
      from: { path: "^src/", pathNot: "^src/(cli|media|server)/" },
      to: { dependencyTypes: ["npm", "npm-dev", "npm-optional", "npm-peer", "npm-no-pkg", "npm-unknown"] },
    },
    {
      name: "sources-know-no-tests",
      severity: "error",
      from: { path: "^src/" },
      to: { path: "^(test|bench|scripts|examples)/" },
    },
    {
      name: "no-cycles",
      severity: "error",
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } },
    },
    { name: "no-unresolvable", severity: "error", from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    doNotFollow: { path: "node_modules" },
    enhancedResolveOptions: { exportsFields: ["exports"], conditionNames: ["import", "default", "types"] },
  },
};
