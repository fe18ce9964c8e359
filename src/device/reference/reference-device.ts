/**
 * The oracle: every op by its plain float64 loops. Slow, and the same on every machine; what other devices compute is
 * compared with it.
 */
import { InterpretedDevice, type Precision } from "../interpreter.ts";

const float64: Precision = {
  bytes: 8,
  floats: (buffer, byteOffset, length) => new Float64Array(buffer, byteOffset, length),
  weight: (data) => Float64Array.from(data),
  kernel: (node) => node.op.reference,
};

export class ReferenceDevice extends InterpretedDevice {
  constructor() {
    super("reference", "TypeScript, float64, one plain loop an op", float64);
  }
}
