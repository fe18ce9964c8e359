/** Every op of the catalogue on every device, over its table of cases, against the float64 oracle. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { cpuKernels } from "../../src/device/cpu/cpu-device.ts";
import type { AnyOp } from "../../src/tensor/graph.ts";
import type { Call, CaseTensor, Elements, OpCase } from "../../src/tensor/op.ts";
import { opCatalogue } from "../../src/tensor/op-catalogue.ts";
import { countElements, resolveShape } from "../../src/tensor/shape.ts";

type Floats = (values: readonly number[]) => Elements;
const float64: Floats = (values) => Float64Array.from(values);
const float32: Floats = (values) => Float32Array.from(values);

/** Sizes that the cases leave open: indexer scores have a column for each entry that any query of the case sees. */
const openSizes = { "visible.4": 5 };

function call(op: AnyOp, { inputs, attributes }: OpCase<unknown>, floats: Floats): Call<unknown> {
  const elements = ({ dtype, values }: CaseTensor) => (dtype === "i32" ? Int32Array.from(values) : floats(values));
  const buffers = inputs.map(elements);
  const types = op.infer(inputs, attributes);
  const outputShapes = types.map((type) => resolveShape(type.shape, openSizes));
  const outputs = types.map(({ dtype }, i) => {
    if (op.writesInput && i === 0) return buffers[0]!;
    return elements({
      dtype,
      shape: outputShapes[i]!,
      values: new Array(countElements(outputShapes[i]!)).fill(Number.NaN),
    });
  });
  return { inputs: buffers, outputs, inputShapes: inputs.map((input) => input.shape), outputShapes, attributes };
}

/** The greatest |found - expected| / (1 + |expected|), and where. */
function worst(found: Elements, expected: Elements): { error: number; index: number } {
  let result = { error: 0, index: -1 };
  for (let i = 0; i < expected.length; i++) {
    if (Object.is(found[i], expected[i])) continue;
    const error = Math.abs(found[i]! - expected[i]!) / (1 + Math.abs(expected[i]!));
    if (!(error <= result.error)) result = { error, index: i };
  }
  return result;
}

const devices = [
  { name: "cpu", floats: float32, kernel: (op: AnyOp) => cpuKernels.get(op.name) ?? op.reference },
  { name: "reference on float32 buffers", floats: float32, kernel: (op: AnyOp) => op.reference },
];

for (const device of devices) {
  describe(device.name, () => {
    for (const op of opCatalogue) {
      for (const opCase of op.cases()) {
        test(`${op.name}, ${opCase.name}: agrees with the oracle`, () => {
          const oracle = call(op, opCase, float64);
          op.reference(oracle);
          const found = call(op, opCase, device.floats);
          (device.kernel(op) as (call: Call<unknown>) => void)(found);
          oracle.outputs.forEach((expected, i) => {
            const { error, index } = worst(found.outputs[i]!, expected);
            const detail = `output ${i}, element ${index}: ${found.outputs[i]![index]}, expected ${expected[index]}`;
            assert.ok(error <= op.tolerance, detail);
          });
        });
      }
    }
  });
}

describe("ops that may write over their input", () => {
  for (const op of opCatalogue.filter((candidate) => candidate.mayOverwrite)) {
    test(`${op.name} gives the same result in place`, () => {
      for (const opCase of op.cases()) {
        const apart = call(op, opCase, float32);
        op.reference(apart);
        const inPlace = call(op, opCase, float32);
        op.reference({ ...inPlace, outputs: [inPlace.inputs[0]!] });
        assert.deepEqual(inPlace.inputs[0], apart.outputs[0]);
      }
    });
  }
});

describe("the catalogue", () => {
  test("every op is in it once and has a case", () => {
    assert.equal(new Set(opCatalogue.map((op) => op.name)).size, opCatalogue.length);
    for (const op of opCatalogue) assert.ok(op.cases().length > 0, op.name);
  });
  test("every kernel of the CPU device is that of an op", () => {
    const names = new Set(opCatalogue.map((op) => op.name));
    for (const name of cpuKernels.keys()) assert.ok(names.has(name), name);
  });
});
