/**
 * How many positions an image takes in a V4.1 prompt: a grid of cells of 3x3 patches of 14 pixels, one row end a row, start
 * and end. Images are scaled up to a least number of pixels and down to a greatest number of positions.
 */
export interface ImageGridOptions {
  readonly patchSize: number;
  readonly downsample: number;
  readonly maxTokens: number;
  readonly minPixels: number;
}

const released: ImageGridOptions = { patchSize: 14, downsample: 3, maxTokens: 1024, minPixels: 295_936 };

export interface ImageGrid {
  /** Pixels that the image is fitted into. */
  readonly width: number;
  readonly height: number;
  readonly rows: number;
  readonly columns: number;
  /** Positions in the prompt: rows * (columns + 1) + 2. */
  readonly tokens: number;
}

export function imageGrid(imageWidth: number, imageHeight: number, options: ImageGridOptions = released): ImageGrid {
  const { patchSize, downsample, maxTokens, minPixels } = options;
  let [w, h] = [imageWidth, imageHeight];
  if (w * h < minPixels) {
    const factor = Math.sqrt(minPixels / (w * h));
    [w, h] = [Math.trunc(w * factor), Math.trunc(h * factor)];
  }
  const upToPatch = (side: number) => Math.ceil(side / patchSize) * patchSize;
  const grid = gridOf(upToPatch(w), upToPatch(h), options);
  if (grid.tokens <= maxTokens) return grid;

  const cell = patchSize * downsample;
  const ratio = h / w;
  const mostColumns = Math.sqrt((maxTokens - 2) / ratio + 0.25) - 0.5;
  const mostRows = mostColumns * ratio;
  if (mostColumns < 1) return gridOf(cell, Math.floor((maxTokens - 2) / 2) * cell, options);
  if (mostRows < 1) return gridOf((maxTokens - 3) * cell, cell, options);
  const scale = Math.min((Math.floor(mostColumns) * cell) / w, (Math.floor(mostRows) * cell) / h);
  const downToPatch = (side: number) => Math.floor((side * scale) / patchSize) * patchSize;
  return gridOf(downToPatch(w), downToPatch(h), options);
}

function gridOf(width: number, height: number, { patchSize, downsample }: ImageGridOptions): ImageGrid {
  const cells = (side: number) => Math.ceil(side / patchSize / downsample);
  const [rows, columns] = [cells(height), cells(width)];
  return { width, height, rows, columns, tokens: rows * (columns + 1) + 2 };
}
