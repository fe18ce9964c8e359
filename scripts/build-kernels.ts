/**
 * Builds src/device/cpu/prebuilt/ from src/device/cpu/kernels/ with Debian's clang and lld: a native addon for each platform, with
 * a body for each instruction set inside, and two WebAssembly modules. The same compiler gives the same bytes.
 * Run: npm run build:kernels [-- NAME ...]     NAME: linux-x64, darwin-arm64, wasm-relaxed ...; default: all
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

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

/** Bodies that are some products alone (int8-body.c): everything else is that of the body before them. */
const int8Bodies: readonly string[] = ["avxvnni", "amx", "dotprod"];

/** The flags of each instruction set. */
const bodies: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  x64: {
    sse2: ["-msse2", "-Os", "-falign-loops=1"], // its products are as fast, and of all else this is the body to be small
    avx2: ["-mavx2", "-mfma", "-mf16c"],
    avxvnni: ["-mavx2", "-mfma", "-mf16c", "-mavxvnni"],
    avx512,
    amx: [...avx512, "-mamx-tile", "-mamx-int8", "-mamx-bf16"],
  },
  arm64: { neon: [], dotprod: ["-march=armv8.2-a+dotprod"] },
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

function buildAddon(platform: string, folder: string): void {
  const [system, processor] = platform.split("-") as [string, string];
  const flags = [`--target=${triples[platform]}`, ...common, ...(system === "linux" ? ["-fPIC"] : [])];
  if (system === "win32") flags.push(...windowsFlags);
  const objects = Object.entries(bodies[processor]!).map(([body, ofBody]) => {
    const object = join(folder, `${body}.o`);
    const source = int8Bodies.includes(body) ? "int8-body.c" : "body.c";
    run("clang", [...flags, ...ofBody, `-DBODY=${body}`, "-c", source, "-o", object]);
    return object;
  });
  for (const source of ["shared-ops", "addon"]) {
    const object = join(folder, `${source}.o`);
    run("clang", [...flags, "-Os", "-c", `${source}.c`, "-o", object]);
    objects.push(object);
  }
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
    run("ld64.lld", ["-arch", architecture, ...version, ...kind, "-dead_strip", "-x", ...objects, library, "-o", out]);
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
  const relaxed = name === "wasm-relaxed";
  const features = ["-msimd128", "-matomics", "-mbulk-memory", ...(relaxed ? ["-mrelaxed-simd"] : [])];
  const object = join(folder, "wasm.o");
  run("clang", [
    "--target=wasm32",
    ...common,
    ...features,
    `-DBODY=${relaxed ? "relaxed" : "simd128"}`,
    "-c",
    "wasm.c",
    "-o",
    object,
  ]);
  const memory = ["--import-memory", "--shared-memory", "--max-memory=4294967296", "-z", "stack-size=65536"];
  run("wasm-ld", [
    "--no-entry",
    "--strip-all",
    "--gc-sections",
    ...memory,
    "--export=__heap_base",
    object,
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
for (const file of readdirSync(prebuilt))
  console.log(`${(statSync(join(prebuilt, file)).size / 1024).toFixed(0).padStart(5)} KB  ${file}`);
