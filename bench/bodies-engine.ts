/** The scripted engine of the tests, which also takes images: as the engine of every day does, up to the bytes of the file. */
import {
  EngineError,
  type EngineEvent,
  type EngineInfo,
  type EngineRequest,
  type RequestImage,
} from "../src/engine/batching/engine-port.ts";
import { contentIds, fewestImageTokens } from "../src/engine/vision/content-ids.ts";
import { FreeholdError } from "../src/errors.ts";
import { bytesOfDataUrl } from "../src/media/data-url.ts";
import { ScriptedEngine, type ScriptedOptions, scriptedInfo } from "../test/serving/scripted-engine.ts";
import { idOfByte } from "../test/vision-folder.ts";

const maxBytes = 32 * 2 ** 20;

class ImageEngine extends ScriptedEngine {
  override readonly info: EngineInfo = { ...scriptedInfo, images: { most: 100, maxBytes, tokenId: 4 } };

  /** Every token is the byte of a letter. */
  override submit(request: EngineRequest, listener: (event: EngineEvent) => void): void {
    super.submit(request, (event) => {
      listener(event.type === "tokens" ? { ...event, ids: event.ids.map((id) => idOfByte(97 + (id % 26))) } : event);
    });
  }

  async prepareImage(source: string): Promise<RequestImage> {
    try {
      const { length } = await bytesOfDataUrl(source, maxBytes);
      return { source, tokenIds: contentIds(length.toString(16).padStart(64, "0"), fewestImageTokens) };
    } catch (error) {
      if (!(error instanceof FreeholdError)) throw error;
      throw new EngineError({ code: error.code, message: error.message, isRetryable: false });
    }
  }
}

export async function startEngine(options: ScriptedOptions): Promise<ScriptedEngine> {
  return new ImageEngine({ stepMs: 2, ...options });
}
