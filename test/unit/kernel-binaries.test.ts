/**
 * What can be told of the prebuilt kernels without running them: each asks its system for a few named functions and nothing else,
 * and is what the system's loader accepts. Read from the files of ELF, Mach-O and PE by their published layouts.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";

const read = (name: string) => readFileSync(new URL(`../../src/device/cpu/prebuilt/${name}`, import.meta.url));

const nodeFunctions = [
  "napi_create_double",
  "napi_create_function",
  "napi_get_cb_info",
  "napi_get_typedarray_info",
  "napi_get_value_double",
  "napi_set_named_property",
];
const entryPoints = ["napi_register_module_v1", "node_api_module_get_api_version_v1"];

/** Zero-terminated. */
function textAt(file: Buffer, offset: number): string {
  return file.toString("latin1", offset, file.indexOf(0, offset));
}

const whole = (file: Buffer, offset: number) => Number(file.readBigUInt64LE(offset));

interface Segment {
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly bytes: number;
  readonly alignment: number;
}

/** Addresses of the tables equal their places in the file, because they lie in the first segment. */
function readElf(file: Buffer) {
  const segments = Array.from({ length: file.readUInt16LE(56) }, (_, i): Segment => {
    const at = whole(file, 32) + i * file.readUInt16LE(54);
    const [type, flags] = [file.readUInt32LE(at), file.readUInt32LE(at + 4)];
    return { type, flags, offset: whole(file, at + 8), bytes: whole(file, at + 32), alignment: whole(file, at + 48) };
  });
  const dynamic = segments.find(({ type }) => type === 2)!;
  const entries = Array.from({ length: dynamic.bytes / 16 }, (_, i) => [
    whole(file, dynamic.offset + 16 * i),
    whole(file, dynamic.offset + 16 * i + 8),
  ]) as [number, number][];
  const [table, strings, hash] = [6, 5, 4].map((tag) => entries.find(([found]) => found === tag)![1]) as [
    number,
    number,
    number,
  ];
  const symbols = Array.from({ length: file.readUInt32LE(hash + 4) }, (_, i) => ({
    name: textAt(file, strings + file.readUInt32LE(table + 24 * i)),
    isDefined: file.readUInt16LE(table + 24 * i + 6) !== 0,
  })).filter(({ name }) => name !== "");
  return { machine: file.readUInt16LE(18), segments, tags: entries.map(([tag]) => tag), symbols };
}

describe("the addons for Linux", () => {
  for (const [processor, machine, pages] of [
    ["x64", 62, 4096],
    ["arm64", 183, 65536],
  ] as const) {
    const elf = readElf(read(`freehold-linux-${processor}.node`));
    const named = (isDefined: boolean) => elf.symbols.filter((s) => s.isDefined === isDefined).map(({ name }) => name);

    test(`${processor}: needs Node-API and no library, so that any C library will do`, () => {
      assert.equal(elf.machine, machine);
      assert.deepEqual(named(false).sort(), nodeFunctions);
      assert.deepEqual(named(true).sort(), entryPoints);
      assert.ok(!elf.tags.includes(1), "DT_NEEDED");
    });
    test(`${processor}: has pages of ${pages} bytes, none both writable and executable, and code that is never patched`, () => {
      for (const { type, flags, alignment } of elf.segments) {
        assert.notEqual(flags & 3, 3);
        if (type === 1) assert.ok(alignment >= pages, `${alignment}`);
      }
      const stack = elf.segments.find(({ type }) => type === 0x6474e551);
      assert.equal(stack!.flags & 1, 0);
      assert.ok(!elf.tags.includes(22), "DT_TEXTREL");
    });
  }
});

function readMachO(file: Buffer) {
  let at = 32;
  const commands = Array.from({ length: file.readUInt32LE(16) }, () => {
    const [type, size] = [file.readUInt32LE(at), file.readUInt32LE(at + 4)];
    const bytes = file.subarray(at, at + size);
    at += size;
    return { type, bytes };
  });
  const find = (type: number) => commands.filter((command) => command.type === type).map(({ bytes }) => bytes);
  const content = (type: number) => {
    const command = find(type)[0];
    return command && file.subarray(command.readUInt32LE(8), command.readUInt32LE(8) + command.readUInt32LE(12));
  };
  const fixups = content(0x80000034)!; // LC_DYLD_CHAINED_FIXUPS
  const [, , imports, names, count] = Array.from({ length: 5 }, (_, i) => fixups.readUInt32LE(4 * i)) as number[];
  return {
    processor: file.readUInt32LE(4),
    libraries: find(0xc).map((bytes) => textAt(bytes, bytes.readUInt32LE(8))),
    imports: Array.from({ length: count! }, (_, i) => {
      const entry = fixups.readUInt32LE(imports! + 4 * i);
      return { library: (entry << 24) >> 24, name: textAt(fixups, names! + (entry >>> 9)) };
    }),
    build: find(0x32)[0]!,
    exported: content(0x80000033)!.toString("latin1"),
    signature: content(0x1d),
  };
}

/** Throws unless the code directory has the hash of every page. */
function checkSignature(file: Buffer, signature: Buffer): void {
  assert.equal(signature.readUInt32BE(0), 0xfade0cc0);
  const directory = signature.subarray(signature.readUInt32BE(16));
  assert.equal(directory.readUInt32BE(0), 0xfade0c02);
  assert.equal(directory.readUInt32BE(12) & 2, 2, "ad hoc: it names no signer");
  const [hashes, slots, limit] = [16, 28, 32].map((at) => directory.readUInt32BE(at)) as [number, number, number];
  assert.equal(limit, file.length - signature.length, "it covers all that comes before it");
  assert.deepEqual([directory[36], directory[37]], [32, 2], "SHA-256");
  const page = 1 << directory[39]!;
  assert.equal(slots, Math.ceil(limit / page));
  for (let i = 0; i < slots; i++) {
    const hash = createHash("sha256").update(file.subarray(i * page, Math.min(limit, (i + 1) * page)));
    assert.deepEqual(hash.digest(), directory.subarray(hashes + 32 * i, hashes + 32 * (i + 1)), `page ${i}`);
  }
}

describe("the addons for macOS", () => {
  for (const [processor, type] of [
    ["x64", 0x01000007],
    ["arm64", 0x0100000c],
  ] as const) {
    const file = read(`freehold-darwin-${processor}.node`);
    const machO = readMachO(file);
    const of = (library: number) => machO.imports.filter((i) => i.library === library).map(({ name }) => name);

    test(`${processor}: needs three functions of the system's library, and Node-API of whatever loads it`, () => {
      assert.equal(machO.processor, type);
      assert.deepEqual(machO.libraries, ["/usr/lib/libSystem.B.dylib"]);
      assert.deepEqual(of(1).sort(), ["_mmap", "_munmap", "_sched_yield"]);
      assert.deepEqual(
        of(-2).sort(),
        nodeFunctions.map((name) => `_${name}`),
      );
      assert.equal(machO.imports.length, 9);
      // A trie of names: these two have nothing in common behind "_n".
      for (const name of entryPoints) assert.ok(machO.exported.includes(name.slice(1)), name);
    });
    test(`${processor}: runs on macOS 12 and newer`, () => {
      assert.deepEqual([machO.build.readUInt32LE(8), machO.build.readUInt32LE(12)], [1, 12 << 16]);
    });
  }
  const arm = read("freehold-darwin-arm64.node");
  test("arm64: is signed ad hoc, without which macOS ends the process that loads it", () => {
    checkSignature(arm, readMachO(arm).signature!);
  });
  test("the check of a signature finds any byte that is changed", () => {
    for (const at of [100, 5000, arm.length - 3000]) {
      const changed = Buffer.from(arm);
      changed[at]! ^= 1;
      assert.throws(() => checkSignature(changed, readMachO(arm).signature!), /page/);
    }
  });
});

function readPe(file: Buffer) {
  const header = file.readUInt32LE(60);
  const optional = header + 24;
  const sections = Array.from({ length: file.readUInt16LE(header + 6) }, (_, i) => {
    const at = optional + file.readUInt16LE(header + 20) + 40 * i;
    const [size, address, , offset] = [8, 12, 16, 20].map((field) => file.readUInt32LE(at + field)) as number[];
    return {
      name: textAt(file, at),
      size: size!,
      address: address!,
      offset: offset!,
      flags: file.readUInt32LE(at + 36),
    };
  });
  const place = (address: number) => {
    const section = sections.find((s) => address >= s.address && address < s.address + s.size)!;
    return address - section.address + section.offset;
  };
  const directory = (i: number) =>
    [0, 4].map((field) => file.readUInt32LE(optional + 112 + 8 * i + field)) as [number, number];
  const imports: Record<string, string[]> = {};
  for (let at = place(directory(1)[0]); file.readUInt32LE(at + 12) !== 0; at += 20) {
    const names: string[] = [];
    for (let entry = place(file.readUInt32LE(at)); whole(file, entry) !== 0; entry += 8)
      names.push(textAt(file, place(file.readUInt32LE(entry)) + 2));
    imports[textAt(file, place(file.readUInt32LE(at + 12)))] = names.sort();
  }
  const exported = place(directory(0)[0]);
  return {
    machine: file.readUInt16LE(header + 4),
    properties: file.readUInt16LE(optional + 70),
    sections,
    imports,
    exports: Array.from({ length: file.readUInt32LE(exported + 24) }, (_, i) =>
      textAt(file, place(file.readUInt32LE(place(file.readUInt32LE(exported + 32)) + 4 * i))),
    ),
    frames: directory(3)[1],
    entryPoint: file.readUInt32LE(optional + 16),
  };
}

describe("the addons for Windows", () => {
  for (const [processor, machine, more] of [
    ["x64", 0x8664, []],
    ["arm64", 0xaa64, ["IsProcessorFeaturePresent"]],
  ] as const) {
    const pe = readPe(read(`freehold-win32-${processor}.node`));

    test(`${processor}: needs what every Windows 10 has, and names no program that must load it`, () => {
      assert.equal(pe.machine, machine);
      assert.deepEqual(pe.imports, {
        "kernel32.dll": [
          ...["CloseHandle", "CreateFileMappingA", "GetLogicalProcessorInformationEx", "GetModuleHandleExA"],
          ...["GetProcAddress", "GetProcessAffinityMask", ...more, "MapViewOfFile", "UnmapViewOfFile"],
        ],
        "api-ms-win-core-synch-l1-2-0.dll": ["WaitOnAddress", "WakeByAddressAll"],
      });
      assert.deepEqual(pe.exports.sort(), entryPoints);
    });
    test(`${processor}: may lie at any address, has no page both writable and executable, and tables of its frames`, () => {
      const anyAddressOf64Bits = 0x20 | 0x40;
      const noCodeInData = 0x100;
      assert.equal(pe.properties & (anyAddressOf64Bits | noCodeInData), anyAddressOf64Bits | noCodeInData);
      for (const { name, flags } of pe.sections) assert.notEqual(flags >>> 29, 7, name);
      assert.ok(pe.frames > 0);
      assert.equal(pe.entryPoint, 0, "nothing runs when it is loaded");
    });
  }
});

describe("the modules of WebAssembly", () => {
  for (const name of ["simd128", "relaxed"]) {
    test(`${name}: needs a memory and nothing else`, async () => {
      const module = await WebAssembly.compile(read(`freehold-wasm-${name}.wasm`));
      assert.deepEqual(WebAssembly.Module.imports(module), [{ module: "env", name: "memory", kind: "memory" }]);
    });
  }
});
