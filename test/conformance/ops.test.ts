/** Every op of the catalogue on every body of the kernels, over its table of cases, against the float64 oracle. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Device } from "../../src/device/device.ts";
import { type AnyOp, Graph } from "../../src/tensor/graph.ts";
import type { Call, CaseTensor, Elements, OpCase } from "../../src/tensor/op.ts";
import { opCatalogue } from "../../src/tensor/op-catalogue.ts";
import { scale } from "../../src/tensor/ops/scale.ts";
import { countElements, resolveShape } from "../../src/tensor/shape.ts";
import { kernelBodiesHere, reportBodiesElsewhere } from "../kernel-devices.ts";

type Floats = (values: readonly number[]) => Float64Array | Float32Array;
const float64: Floats = (values) => Float64Array.from(values);
const float32: Floats = (values) => Float32Array.from(values);

/** Sizes that the cases leave open: indexer scores have a column for each entry that any query of the case sees. */
const openSizes = { "visible.1": 64, "visible.4": 5 };

function elements({ dtype, values }: CaseTensor, floats: Floats): Elements {
  return dtype === "i32" ? Int32Array.from(values) : floats(values);
}

function call(op: AnyOp, { inputs, attributes }: OpCase<unknown>, floats: Floats): Call<unknown> {
  const buffers = inputs.map((input) => elements(input, floats));
  const types = op.infer(inputs, attributes);
  const outputShapes = types.map((type) => resolveShape(type.shape, openSizes));
  const outputs = types.map(({ dtype }, i) => {
    if (op.writesInput && i === 0) return buffers[0]!;
    const values = new Array(countElements(outputShapes[i]!)).fill(Number.NaN);
    return elements({ dtype, shape: outputShapes[i]!, values }, floats);
  });
  return { inputs: buffers, outputs, inputShapes: inputs.map((input) => input.shape), outputShapes, attributes };
}

function oracle(op: AnyOp, opCase: OpCase<unknown>): readonly Elements[] {
  const reference = call(op, opCase, float64);
  op.reference(reference);
  return reference.outputs;
}

/** Matrices that are multiplied are weights, everything else is an input of the step. */
const weightInputs: Readonly<Record<string, readonly number[]>> = {
  linear: [1],
  groupedLinear: [1],
  experts: [3, 4, 5],
};

/** The outputs of an op on a device; `inPlace`: input 0 is an intermediate value that nobody else reads. */
async function outputsOn(
  device: Device,
  op: AnyOp,
  { inputs, attributes }: OpCase<unknown>,
  { inPlace = false } = {},
): Promise<Elements[]> {
  const g = new Graph();
  const values: Record<string, Int32Array | Float32Array> = {};
  const tensors = inputs.map((input, i) => {
    const data = elements(input, float32) as Float32Array | Int32Array;
    if (weightInputs[op.name]?.includes(i)) {
      device.setWeight(`w${i}`, data);
      return g.weight(`w${i}`, input.shape, input.dtype);
    }
    values[`x${i}`] = data;
    const tensor = g.input(`x${i}`, input.dtype, input.shape);
    return inPlace && i === 0 ? g.call(scale, [tensor], { factor: 1 }) : tensor;
  });
  const outputs = g.apply(op, tensors, attributes);
  outputs.forEach((output, i) => {
    g.output(`y${i}`, output);
  });
  const program = device.compile(g, { limits: openSizes });
  await program.run({ sizes: openSizes, inputs: values });
  return outputs.map((_, i) => program.read(`y${i}`));
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

function assertClose(op: AnyOp, found: readonly Elements[], expected: readonly Elements[]): void {
  expected.forEach((values, i) => {
    assert.equal(found[i]!.length, values.length, `output ${i}`);
    const { error, index } = worst(found[i]!, values);
    assert.ok(error <= op.tolerance, `output ${i}, element ${index}: ${found[i]![index]}, expected ${values[index]}`);
  });
}

for (const body of kernelBodiesHere) {
  describe(body.name, async () => {
    for (const workers of [1, 3]) {
      const device = await body.create({ workers });
      for (const op of opCatalogue) {
        for (const opCase of op.cases()) {
          test(`${op.name}, ${opCase.name}, ${workers} workers: agrees with the oracle`, async () => {
            const found = await outputsOn(device, op, opCase);
            assertClose(op, found, oracle(op, opCase));
            if (op.mayOverwrite) assert.deepEqual(await outputsOn(device, op, opCase, { inPlace: true }), found);
          });
        }
      }
    }
  });
}
describe("bodies that this machine cannot run", reportBodiesElsewhere);

describe("the reference on float32 buffers", () => {
  for (const op of opCatalogue) {
    test(`${op.name} agrees with the oracle`, () => {
      for (const opCase of op.cases()) {
        const found = call(op, opCase, float32);
        op.reference(found);
        assertClose(op, found.outputs, oracle(op, opCase));
      }
    });
  }
});

describe("ops that may write over their input", () => {
  for (const op of opCatalogue.filter((candidate) => candidate.mayOverwrite)) {
    test(`${op.name} gives the same result in place`, () => {
      for (const opCase of op.cases()) {
        const apart = call(op, opCase, float32);
        op.reference(apart);
        const inPlace = call(op, opCase, float32);
        op.reference({ ...inPlace, outputs: [inPlace.inputs[0]!, ...inPlace.outputs.slice(1)] });
        assert.deepEqual(inPlace.inputs[0], apart.outputs[0]);
      }
    });
  }
});

test("every op is in the catalogue once and has a case", () => {
  assert.equal(new Set(opCatalogue.map((op) => op.name)).size, opCatalogue.length);
  for (const op of opCatalogue) assert.ok(op.cases().length > 0, op.name);
});
