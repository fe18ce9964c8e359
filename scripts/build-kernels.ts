/**
 * Builds src/device/cpu/prebuilt/ from src/device/cpu/kernels/ with Debian's clang and lld: a native addon for each platform, with
 * the products of each instruction set inside, and two WebAssembly modules. The same compiler gives the same bytes.
 * Run: npm run build:kernels [-- NAME ...]     NAME: linux-x64, darwin-arm64, wasm-relaxed ...; default: all
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const version = 19;
const sources = join(import.meta.dirname, "../src/device/cpu/kernels");
const prebuilt = join(import.meta.dirname, "../src/device/cpu/prebuilt");

const tool = (name: string) => `/usr/lib/llvm-${version}/bin/${name}`;
const run = (name: string, args: readonly string[]) =>
  execFileSync(tool(name), args, { stdio: "inherit", cwd: sources });

const common = [
  "-std=c11",
  "-O2",
  "-fno-unroll-loops", // a quarter smaller; the loops that are hot are unrolled by name (UNROLL)
  "-ffreestanding",
  "-fno-builtin",
  "-fno-stack-protector",
  "-fvisibility=hidden",
  "-ffp-contract=off", // fused multiply-adds only where the kernels say so: the same sums whatever the compiler finds
  "-fno-math-errno",
  "-fno-asynchronous-unwind-tables",
  "-fno-ident",
  ...(process.env.KEEP_SYMBOLS ? ["-fno-omit-frame-pointer", "-fno-optimize-sibling-calls"] : []),
  "-Wall",
  "-Wextra",
  "-Werror",
  "-Wno-unused-function",
];

const avx512 = [
  ...["f", "bw", "dq", "vl", "vnni"].map((part) => `-mavx512${part}`),
  "-mfma",
  "-mprefer-vector-width=512",
];

/** What is compiled once for an instruction set, in the flags of that set. */
type Part = readonly [source: "products" | "int8-products", instructions: string];

const parts: Readonly<Record<string, readonly Part[]>> = {
  x64: [
    ...(["sse2", "avx2", "avx512"] as const).map((set) => ["products", set] as const),
    ...(["avxvnni", "amx"] as const).map((set) => ["int8-products", set] as const),
  ],
  arm64: [
    ["products", "neon"],
    ["int8-products", "dotprod"],
  ],
};

/**
 * What a system keeps from programs, or does not need. Compiled for macOS, NEON has the dot product, which all processors of Apple
 * have; macOS shows no AVX-512 in XCR0, its versions up to 12.1 spoil the mask registers, and no Mac has AVX-VNNI or AMX.
 */
const without: Readonly<Record<string, readonly string[]>> = {
  linux: [],
  darwin: ["dotprod", "avxvnni", "avx512", "amx"],
  win32: ["amx"], // Windows is asked for tiles in a way that was never tried
};

const flagsOf: Readonly<Record<string, readonly string[]>> = {
  sse2: ["-msse2", "-Os", "-falign-loops=1"], // its products are as fast, and of all else this is the set to be small
  avx2: ["-mavx2", "-mfma", "-mf16c"],
  avxvnni: ["-mavx2", "-mfma", "-mf16c", "-mavxvnni"],
  avx512,
  amx: [...avx512, "-mamx-tile", "-mamx-int8", "-mamx-bf16"],
  neon: [],
  dotprod: ["-march=armv8.2-a+dotprod"],
  simd128: [],
  relaxed: ["-mrelaxed-simd"],
};

const triples: Readonly<Record<string, string>> = {
  "linux-x64": "x86_64-unknown-linux-gnu",
  "linux-arm64": "aarch64-unknown-linux-gnu",
  "darwin-x64": "x86_64-apple-macos12.0",
  "darwin-arm64": "arm64-apple-macos12.0",
  "win32-x64": "x86_64-pc-windows-msvc",
  "win32-arm64": "aarch64-pc-windows-msvc",
};

const windowsFlags = [
  // A stack grows page by page, so that a function must not step over one: no frame here is that large.
  "-mno-stack-arg-probe",
  "-Wframe-larger-than=4096",
  // Whoever reports crashes of the process finds them only through tables of all frames on the stack.
  "-fasynchronous-unwind-tables",
];

/** The objects of the parts, and of what is compiled once. */
function compile(folder: string, flags: readonly string[], parts: readonly Part[], once: readonly string[]): string[] {
  const object = (source: string, name: string, more: readonly string[]) => {
    const out = join(folder, `${name}.o`);
    run("clang", [...flags, ...more, "-c", `${source}.c`, "-o", out]);
    return out;
  };
  return [
    ...parts.map(([source, set]) => object(source, set, [...flagsOf[set]!, `-DBODY=${set}`])),
    ...once.map((source) => object(source, source, ["-Os"])), // for size: a small model answers 3 % later
  ];
}

function buildAddon(platform: string, folder: string): void {
  const [system, processor] = platform.split("-") as [string, string];
  const flags = [`--target=${triples[platform]}`, ...common, ...(system === "linux" ? ["-fPIC"] : [])];
  if (system === "win32") flags.push(...windowsFlags);
  const needed = parts[processor]!.filter(([, set]) => !without[system]!.includes(set));
  const objects = compile(folder, flags, needed, ["ops", "addon"]);
  const out = join(prebuilt, `freehold-${platform}.node`);
  if (system === "linux") {
    run("ld.lld", [
      "-shared",
      "--gc-sections",
      ...(process.env.KEEP_SYMBOLS ? [] : ["--strip-all"]),
      "--build-id=none",
      "-z",
      "noexecstack",
      ...objects,
      "-o",
      out,
    ]);
  } else if (system === "darwin") {
    const library = join(folder, "libSystem.tbd");
    writeFileSync(library, systemLibrary);
    const architecture = processor === "arm64" ? "arm64" : "x86_64";
    const version = ["-platform_version", "macos", "12.0", "12.0"];
    const kind = [
      "-dylib",
      "-undefined",
      "dynamic_lookup",
      "-fixup_chains",
      "-install_name",
      `@rpath/freehold-${platform}.node`,
    ];
    run("ld64.lld", [
      "-arch",
      architecture,
      ...version,
      ...kind,
      "-dead_strip",
      "-x",
      "-no_function_starts",
      "-no_data_in_code_info",
      ...objects,
      library,
      "-o",
      out,
    ]);
  } else {
    const machine = processor === "arm64" ? "arm64" : "i386:x86-64";
    const libraries = Object.entries(windowsImports).map(([dll, names]) => {
      const definition = join(folder, `${dll}.def`);
      const library = join(folder, `${dll}.lib`);
      writeFileSync(definition, `NAME ${dll}\nEXPORTS\n${names.join("\n")}\n`);
      run("llvm-dlltool", ["-m", machine, "-d", definition, "-l", library]);
      return library;
    });
    const kind = [
      "/dll",
      "/noentry",
      "/nodefaultlib",
      "/brepro",
      "/opt:ref",
      "/debug:none",
      "/export:napi_register_module_v1",
    ];
    run("lld-link", [...kind, "/export:node_api_module_get_api_version_v1", ...objects, ...libraries, `/out:${out}`]);
    rmSync(out.replace(/\.node$/, ".lib"), { force: true });
  }
}

/** What the addon for macOS needs of the system's library; all else comes from the process that loads it. */
const systemLibrary = `--- !tapi-tbd
tbd-version: 4
targets: [ x86_64-macos, arm64-macos ]
install-name: /usr/lib/libSystem.B.dylib
exports:
  - targets: [ x86_64-macos, arm64-macos ]
    symbols: [ dyld_stub_binder, _mmap, _munmap, _sched_yield ]
...
`;

/** Node's own functions are looked up when the addon is loaded (kernels/addon.c). */
const windowsImports: Readonly<Record<string, readonly string[]>> = {
  "kernel32.dll": [
    "GetModuleHandleExA",
    "GetProcAddress",
    "CreateFileMappingA",
    "MapViewOfFile",
    "UnmapViewOfFile",
    "CloseHandle",
    "GetProcessAffinityMask",
    "GetLogicalProcessorInformationEx",
    "IsProcessorFeaturePresent",
  ],
  "api-ms-win-core-synch-l1-2-0.dll": ["WaitOnAddress", "WakeByAddressAll"],
};

function buildWasm(name: string, folder: string): void {
  const set = name.slice("wasm-".length);
  const features = ["--target=wasm32", "-msimd128", "-matomics", "-mbulk-memory", ...flagsOf[set]!];
  const objects = compile(folder, [...common, ...features, `-DBODY=${set}`], [["products", set]], ["ops", "wasm"]);
  const memory = ["--import-memory", "--shared-memory", "--max-memory=4294967296", "-z", "stack-size=65536"];
  run("wasm-ld", [
    "--no-entry",
    "--strip-all",
    "--gc-sections",
    ...memory,
    "--export=__heap_base",
    ...objects,
    "-o",
    join(prebuilt, `freehold-${name}.wasm`),
  ]);
}

const all = [...Object.keys(triples), "wasm-simd128", "wasm-relaxed"];
const wanted = process.argv.slice(2);
mkdirSync(prebuilt, { recursive: true });
for (const name of all) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  const folder = mkdtempSync(join(tmpdir(), "freehold-kernels-"));
  try {
    if (name.startsWith("wasm")) buildWasm(name, folder);
    else buildAddon(name, folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** What the package holds, and what of it is in the tarball. */
let [raw, packed] = [0, 0];
const show = (name: string, bytes: number, zipped: number) =>
  console.log(`${(bytes / 1000).toFixed(0).padStart(6)} KB ${(zipped / 1000).toFixed(0).padStart(5)} KB gzip  ${name}`);
for (const file of readdirSync(prebuilt)) {
  const bytes = readFileSync(join(prebuilt, file));
  const zipped = gzipSync(bytes).length;
  show(file, bytes.length, zipped);
  raw += bytes.length;
  packed += zipped;
}
show("in all", raw, packed);
