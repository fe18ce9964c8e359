/**
 * Which model a request means. One model is served; any name is taken for it, since agents carry the names of other services
 * in their settings. With `strictModel` only its own name and the aliases are.
 */
import { quoted } from "../../errors.ts";
import { HttpError } from "../http-error.ts";
import type { Services } from "../route.ts";

export interface ModelNaming {
  /** Names beside the model's own. */
  readonly aliases: readonly string[];
  /** Refuse other names with 404. */
  readonly strictModel: boolean;
}

/** The name that answers carry. Throws an HttpError (404, model_not_found) for a name that is not served. */
export function servedModel(asked: string | undefined, services: Services, naming: ModelNaming): string {
  const { name } = services.requireInfo();
  if (asked === undefined || !naming.strictModel) return name;
  requireModel(asked, services, naming);
  return name;
}

export function requireModel(asked: string, services: Services, { aliases }: ModelNaming): void {
  const { name } = services.requireInfo();
  // "[1m]" behind a name asks for a long context; it is no part of the name.
  const bare = asked.replace(/\[\d+[km]\]$/i, "");
  if (bare === name || aliases.includes(bare)) return;
  throw new HttpError(404, `The model ${quoted(asked)} does not exist`, {
    code: "model_not_found",
    where: "model",
    hint: `This server has ${[name, ...aliases].join(", ")}`,
  });
}
