/** What each layer of a V4.1 model does, in order: a layer owns compressed entries, selects among them, or uses what is below. */
import type { GroupRatio, V41Config } from "../config.ts";

export interface V41Layer {
  /** The beginning of its weights' names. */
  readonly name: string;
  /** Tokens of a compressed entry; 0: the window alone. */
  readonly ratio: GroupRatio;
  readonly ownsEntries: boolean;
  readonly selects: boolean;
  /** Makes the candidate pool; selects inside it; neither. */
  readonly pool: "makes" | "uses" | undefined;
  /** Index of the layer's table among those of Engram. */
  readonly engram: number | undefined;
}

export function v41Layers(config: V41Config): V41Layer[] {
  const { compressRatios, entrySourceLayers, indexSourceLayers, candidatePool, engram } = config;
  return compressRatios.map((ratio, l) => {
    const source = candidatePool?.sourceLayer ?? Number.POSITIVE_INFINITY;
    const table = engram?.layers.indexOf(l) ?? -1;
    return {
      name: `layers.${l}`,
      ratio,
      ownsEntries: entrySourceLayers.includes(l),
      selects: indexSourceLayers.includes(l),
      pool: l === source ? "makes" : l > source ? "uses" : undefined,
      engram: table < 0 ? undefined : table,
    };
  });
}
