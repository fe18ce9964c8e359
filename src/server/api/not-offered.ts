/** What belongs to the APIs and this model cannot do: 501, and what to do instead. */
import { HttpError } from "../http-error.ts";
import type { Route } from "../route.ts";

const absent: readonly { readonly paths: readonly string[]; readonly what: string; readonly hint: string }[] = [
  {
    paths: ["/v1/embeddings", "/embeddings"],
    what: "Embeddings",
    hint: "DeepSeek V4 has no embedding output; use a model made for it",
  },
  { paths: ["/v1/rerank", "/rerank", "/v1/score"], what: "Reranking", hint: "Use a model made for it" },
  {
    paths: ["/v1/images/generations", "/v1/images/edits", "/v1/images/variations"],
    what: "Images",
    hint: "The loaded model answers in text",
  },
  {
    paths: ["/v1/audio/speech", "/v1/audio/transcriptions", "/v1/audio/translations"],
    what: "Audio",
    hint: "The loaded model reads and answers text",
  },
  { paths: ["/v1/videos"], what: "Videos", hint: "The loaded model answers in text" },
  { paths: ["/v1/moderations"], what: "Moderation", hint: "Answers are not moderated here" },
];

export function absentRoutes(): Route[] {
  return absent.flatMap(({ paths, what, hint }) =>
    paths.map(
      (path): Route => ({
        method: "POST",
        path,
        scope: "infer",
        errors: "openai",
        async handle() {
          throw new HttpError(501, `${what}: not offered by this server`, { code: "not_implemented", hint });
        },
      }),
    ),
  );
}
