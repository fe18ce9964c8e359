/**
 * Coding agents that are run against the server as they come from npm: where each is told the server's address, and how it runs
 * one task without a terminal. Versions are exact, so that a change of theirs is seen as such.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

export interface Agent {
  readonly name: string;
  readonly package: string;
  readonly version: string;
  /** Name of its program under node_modules/.bin. */
  readonly bin: string;
  /** The route it speaks to. */
  readonly api: "/v1/chat/completions" | "/v1/responses" | "/v1/messages";
  /** Writes its configuration below `home` and says how it is started. */
  prepare(task: Task): { readonly args: readonly string[]; readonly env?: Readonly<Record<string, string>> };
}

export interface Task {
  readonly home: string;
  /** Of the server, without /v1. */
  readonly url: string;
  readonly key: string;
  readonly model: string;
  readonly contextLength: number;
  readonly prompt: string;
}

export const agents: readonly Agent[] = [
  {
    name: "Codex",
    package: "@openai/codex",
    version: "0.169.0",
    bin: "codex",
    api: "/v1/responses",
    prepare({ home, url, key, model, contextLength, prompt }) {
      write(
        join(home, ".codex/config.toml"),
        `model = "${model}"
model_provider = "freehold"
model_context_window = ${contextLength}
[model_providers.freehold]
name = "Freehold"
base_url = "${url}/v1"
wire_api = "responses"
env_key = "FREEHOLD_KEY"
`,
      );
      const flags = ["--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"];
      return { args: ["exec", ...flags, prompt], env: { FREEHOLD_KEY: key } };
    },
  },
  {
    name: "Claude Code",
    package: "@anthropic-ai/claude-code",
    version: "2.1.332",
    bin: "claude",
    api: "/v1/messages",
    prepare: ({ url, key, model, prompt }) => ({
      args: ["-p", prompt, "--output-format", "json", "--allowedTools", "Bash(*)"],
      env: {
        ANTHROPIC_BASE_URL: url,
        ANTHROPIC_AUTH_TOKEN: key,
        ANTHROPIC_MODEL: model,
        ANTHROPIC_SMALL_FAST_MODEL: model,
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
      },
    }),
  },
  {
    name: "opencode",
    package: "opencode-ai",
    version: "1.18.33",
    bin: "opencode",
    api: "/v1/chat/completions",
    prepare({ home, url, key, model, contextLength, prompt }) {
      const models = { [model]: { name: model, limit: { context: contextLength, output: 1024 } } };
      writeJson(join(home, ".config/opencode/opencode.json"), {
        provider: {
          freehold: {
            npm: "@ai-sdk/openai-compatible",
            options: { baseURL: `${url}/v1`, apiKey: key },
            models,
          },
        },
        permission: { bash: "allow" },
      });
      return {
        args: ["run", "--format", "json", "--model", `freehold/${model}`, prompt],
        env: { OPENCODE_DISABLE_MODELS_FETCH: "1", OPENCODE_DISABLE_AUTOUPDATE: "1" },
      };
    },
  },
  {
    name: "Qwen Code",
    package: "@qwen-code/qwen-code",
    version: "0.24.4",
    bin: "qwen",
    api: "/v1/chat/completions",
    prepare: ({ url, key, model, prompt }) => ({
      args: ["-y", "--auth-type", "openai", "--output-format", "json", "-p", prompt],
      env: { OPENAI_API_KEY: key, OPENAI_BASE_URL: `${url}/v1`, OPENAI_MODEL: model },
    }),
  },
  {
    name: "pi",
    package: "@earendil-works/pi-coding-agent",
    version: "0.87.1",
    bin: "pi",
    api: "/v1/chat/completions",
    prepare({ home, url, key, model, contextLength, prompt }) {
      const models = [{ id: model, name: model, contextWindow: contextLength, maxTokens: 1024 }];
      writeJson(join(home, ".pi/agent/models.json"), {
        providers: { freehold: { baseUrl: `${url}/v1`, apiKey: key, api: "openai-completions", models } },
      });
      return {
        args: ["--provider", "freehold", "--model", model, "--mode", "json", "-p", prompt],
        env: { PI_OFFLINE: "1" },
      };
    },
  },
  {
    name: "Continue",
    package: "@continuedev/cli",
    version: "1.5.47",
    bin: "cn",
    api: "/v1/chat/completions",
    prepare({ home, url, key, model, contextLength, prompt }) {
      write(
        join(home, "continue.yaml"),
        `name: freehold
version: 0.0.1
schema: v1
models:
  - name: freehold
    provider: openai
    model: ${model}
    apiBase: ${url}/v1
    apiKey: ${key}
    capabilities: [tool_use]
    defaultCompletionOptions: { contextLength: ${contextLength}, maxTokens: 1024 }
`,
      );
      return {
        args: ["--config", join(home, "continue.yaml"), "--auto", "-p", prompt],
        env: { CONTINUE_TELEMETRY_ENABLED: "0" },
      };
    },
  },
];

function write(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

function writeJson(path: string, value: unknown): void {
  write(path, JSON.stringify(value, undefined, 2));
}
