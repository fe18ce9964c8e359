/** The program of the worker thread that decodes images, one after another (see image-reader.ts). */
import { parentPort, workerData } from "node:worker_threads";
import { failureOf } from "./decode-failure.ts";
import { type DecodeJob, decodeImage } from "./decode-job.ts";
import { Decoders } from "./decoders.ts";

const port = parentPort!; // this file is only started as a worker
const decoders = new Decoders((workerData as { memoryBytes: number }).memoryBytes);

port.on("message", async (job: DecodeJob) => {
  try {
    const image = await decodeImage(job, decoders);
    port.postMessage({ image }, [image.data.buffer as ArrayBuffer]);
  } catch (error) {
    port.postMessage({ failure: failureOf(error) });
  }
});
port.postMessage({ ready: true });
decoders.prepare().catch(() => {}); // the image that needs what is missing says so
