/** The program of the worker thread that decodes images, one after another (see image-reader.ts). */
import { parentPort } from "node:worker_threads";
import { failureOf } from "./decode-failure.ts";
import { type DecodeJob, decodeImage } from "./decode-job.ts";

const port = parentPort!; // this file is only started as a worker

port.on("message", async (job: DecodeJob) => {
  try {
    const image = await decodeImage(job);
    port.postMessage({ image }, [image.data.buffer as ArrayBuffer]);
  } catch (error) {
    port.postMessage({ failure: failureOf(error) });
  }
});
port.postMessage({ ready: true });
