/**
 * API keys. A key is 256 random bits; its file holds the SHA-256, so that a stolen file opens nothing, and a slow hash would only
 * serve an attacker who wants the server busy. Comparison takes the same time whatever is given (vLLM's did not: CVE-2025-59425).
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { z } from "zod";
import { FormatError } from "../errors.ts";
import { HttpError } from "./http-error.ts";
import type { Route } from "./route.ts";

export const scopes = ["infer", "admin:read", "admin:write"] as const;
export type Scope = (typeof scopes)[number];

const limitsSchema = z.strictObject({
  requestsPerMinute: z.int().positive().optional(),
  tokensPerMinute: z.int().positive().optional(),
  /** Of this key, waiting in the queue. */
  maxQueuedRequests: z.int().positive().optional(),
  maxQueuedTokens: z.int().positive().optional(),
});

const keySchema = z.strictObject({
  name: z.string().regex(/^[a-z0-9][a-z0-9._-]{0,63}$/, "a name has small letters, digits and . _ - only"),
  sha256: z.string().regex(/^[0-9a-f]{64}$/, "64 hexadecimal digits"),
  scopes: z.array(z.enum(scopes)).min(1),
  /** ISO 8601; a key without is valid until it is removed. */
  expires: z.iso.datetime({ offset: true }).optional(),
  limits: limitsSchema.optional(),
  /** 0 is served first. Default 1. */
  priority: z.int().min(0).max(9).optional(),
  /** Keys of one group share computed prefixes. By default none does: the time of an answer tells what others asked. */
  shareCache: z.string().min(1).max(64).optional(),
});

const fileSchema = z.strictObject({ version: z.literal(1), keys: z.array(keySchema).max(1000) });

export type KeyRecord = z.infer<typeof keySchema>;
export type KeyLimits = z.infer<typeof limitsSchema>;
export type KeyFile = z.infer<typeof fileSchema>;

/** Who asks. */
export interface Identity {
  readonly name: string;
  readonly namespace: string;
  readonly priority: number;
  readonly scopes: readonly Scope[];
  readonly limits: KeyLimits;
}

/** Throws a FormatError that names the entry. */
export function parseKeyFile(text: string, path: string): KeyFile {
  const result = fileSchema.safeParse(jsonOf(text, path));
  if (!result.success) {
    const [issue] = result.error.issues;
    const place = issue!.path.join(".") || "the file";
    throw new FormatError(`The key file is wrong at ${place}: ${issue!.message}`, {
      code: "key-file",
      where: path,
      hint: "Make it with freehold keys add",
    });
  }
  refuseDoubleNames(result.data, path);
  return result.data;
}

/** A new key and what its file keeps of it. */
export function makeKey(record: Omit<KeyRecord, "sha256">): { readonly key: string; readonly record: KeyRecord } {
  const key = `fh-${randomBytes(32).toString("base64url")}`;
  return { key, record: { ...record, sha256: sha256(key).toString("hex") } };
}

export class Keyring {
  readonly #keys: readonly (KeyRecord & { readonly digest: Buffer })[];
  readonly #nowMs: () => number;

  constructor(file: KeyFile, nowMs: () => number = Date.now) {
    this.#keys = file.keys.map((record) => ({ ...record, digest: Buffer.from(record.sha256, "hex") }));
    this.#nowMs = nowMs;
  }

  get size(): number {
    return this.#keys.length;
  }

  /** Throws an HttpError: 401 without a valid key, 403 when it may not do this. */
  authenticate(headers: IncomingHttpHeaders, scope: Route["scope"]): Identity {
    if (scope === "none") return stranger;
    const presented = presentedKey(headers);
    if (presented === undefined) throw unauthorized("There is no API key", "Send it as authorization: Bearer KEY");
    const record = this.#find(sha256(presented));
    if (record === undefined) throw unauthorized("The API key is not valid", "Make one with freehold keys add");
    if (record.expires !== undefined && Date.parse(record.expires) <= this.#nowMs()) {
      throw unauthorized("The API key has expired", "Make a new one with freehold keys add");
    }
    if (!record.scopes.includes(scope)) {
      throw new HttpError(403, `The API key does not allow ${scope}`, {
        code: "scope",
        hint: "Use a key with that scope",
      });
    }
    return identityOf(record);
  }

  /** Every key is compared, also after one fitted. */
  #find(digest: Buffer): KeyRecord | undefined {
    let found: KeyRecord | undefined;
    for (const key of this.#keys) if (timingSafeEqual(key.digest, digest)) found = key;
    return found;
  }
}

/** Of a server without keys, which listens to this machine only. */
export const anonymous: Identity = {
  name: "anonymous",
  namespace: "anonymous",
  priority: 1,
  scopes: ["infer", "admin:read", "admin:write"],
  limits: {},
};

/** Who opened a listener that only its owner can open. */
export const operator: Identity = { ...anonymous, name: "operator" };

/** Who calls a route that needs no key. */
const stranger: Identity = { ...anonymous, scopes: [] };

function identityOf({ name, sha256: hash, scopes: granted, limits, priority, shareCache }: KeyRecord): Identity {
  const owner = shareCache === undefined ? `key ${hash}` : `group ${shareCache}`;
  return {
    name,
    namespace: sha256(`freehold cache namespace of ${owner}`).toString("hex").slice(0, 32),
    priority: priority ?? 1,
    scopes: granted,
    limits: limits ?? {},
  };
}

/** `Authorization: Bearer` (OpenAI) or `x-api-key` (Anthropic). */
function presentedKey(headers: IncomingHttpHeaders): string | undefined {
  const bearer = /^Bearer +(\S+) *$/i.exec(headers.authorization ?? "")?.[1];
  const apiKey = headers["x-api-key"];
  return bearer ?? (typeof apiKey === "string" && apiKey !== "" ? apiKey : undefined);
}

function unauthorized(message: string, hint: string): HttpError {
  return new HttpError(401, message, { code: "invalid-api-key", hint, headers: { "www-authenticate": "Bearer" } });
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function jsonOf(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new FormatError("The key file is not JSON", { code: "key-file", where: path, cause });
  }
}

function refuseDoubleNames({ keys }: KeyFile, path: string): void {
  const names = new Set<string>();
  for (const { name } of keys) {
    if (names.has(name)) throw new FormatError(`Two keys are called ${name}`, { code: "key-file", where: path });
    names.add(name);
  }
}
