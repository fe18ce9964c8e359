/** GET and DELETE of a response that is kept, and the items it answered. */
import { fromJson } from "../../../chat/read-json.ts";
import { HttpError } from "../../http-error.ts";
import type { Call, Route } from "../../route.ts";
import type { ResponseStore, StoredResponse } from "./response-store.ts";

export function storedResponseRoutes(path: string, store: ResponseStore): Route[] {
  const route = { scope: "infer", errors: "openai" } as const;
  const one = `${path}/{id}`;
  return [
    { ...route, method: "GET", path: one, handle: async (call) => call.json(200, find(call, store).response) },
    { ...route, method: "DELETE", path: one, handle: async (call) => remove(call, store) },
    { ...route, method: "GET", path: `${one}/input_items`, handle: async (call) => listInput(call, store) },
  ];
}

function find(call: Call, store: ResponseStore): StoredResponse {
  const id = call.parameters.id!;
  const stored = store.get(call.namespace, id);
  if (stored !== undefined) return stored;
  throw new HttpError(404, `Response with id ${JSON.stringify(id.slice(0, 80))} not found`, {
    code: "response_not_found",
    where: "id",
    hint: "Responses are kept in memory for a while, unless store is false",
  });
}

function remove(call: Call, store: ResponseStore): void {
  const { id } = find(call, store).response;
  store.delete(call.namespace, id);
  call.json(200, { id, object: "response", deleted: true });
}

/** Oldest first with `order=asc`; the newest first otherwise, as in OpenAI's API. */
function listInput(call: Call, store: ResponseStore): void {
  const { response, input } = find(call, store);
  const items = input.map((item, i) => ({
    id: `item_${response.id.slice("resp_".length)}_${i}`,
    type: "message",
    ...(fromJson(item) as object), // the schema has said: an object
  }));
  const ordered = call.url.searchParams.get("order") === "asc" ? items : items.reverse();
  const after = ordered.findIndex(({ id }) => id === call.url.searchParams.get("after"));
  const limit = Math.min(Math.max(Number(call.url.searchParams.get("limit")) || 20, 1), 100);
  const rest = ordered.slice(after + 1);
  const data = rest.slice(0, limit);
  call.json(200, {
    object: "list",
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: rest.length > data.length,
  });
}
