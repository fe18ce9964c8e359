import { Pacer } from "../engine/pacer.ts";

/** For the steps of one request: between them others go first when it has held the event loop for 5 ms. What is quick never waits. */
export function requestPacer(): Pacer {
  return new Pacer(5);
}
