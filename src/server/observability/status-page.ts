/** The page at "/": what the server does now, in one file without anything from elsewhere. English and Chinese, light and dark. */
import { createHash } from "node:crypto";

const style = `
:root{color-scheme:light dark;--line:color-mix(in srgb,currentColor 15%,transparent);--soft:color-mix(in srgb,currentColor 60%,transparent)}
body{font:15px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.3rem;margin:0}#state{color:var(--soft);margin:0 0 1.5rem}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:.75rem;margin:0}
div{border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}
dt{color:var(--soft);font-size:.8rem}dd{margin:0;font-size:1.25rem;font-variant-numeric:tabular-nums}
form{margin:0 0 1rem}input{font:inherit;width:22rem;max-width:100%}p a{margin-right:1rem}`;

const script = `
const zh = navigator.language.toLowerCase().startsWith("zh");
const words = zh
  ? {model:"模型",device:"设备",running:"运行中",waiting:"排队",streams:"流",decode:"生成 词元/秒",prefill:"读入 词元/秒",hits:"缓存命中",cached:"免算词元",memory:"缓存内存",disk:"缓存磁盘",restarts:"引擎重启",ngrams:"N-gram 行命中",ngramRows:"读取的 N-gram 行",ready:"就绪",sleeping:"休眠（下一个请求唤醒）",waking:"正在唤醒",notReady:"未就绪：",key:"API 密钥（admin:read）",gone:"服务器没有应答"}
  : {model:"Model",device:"Device",running:"Running",waiting:"Waiting",streams:"Streams",decode:"Generated tokens/s",prefill:"Prompt tokens/s",hits:"Cache hits",cached:"Tokens not recomputed",memory:"Cache memory",disk:"Cache disk",restarts:"Engine restarts",ngrams:"N-gram rows in memory",ngramRows:"N-gram rows read",ready:"ready",sleeping:"asleep until the next request",waking:"waking up",notReady:"not ready: ",key:"API key (admin:read)",gone:"The server does not answer"};
document.documentElement.lang = zh ? "zh" : "en";
const state = document.getElementById("state"), list = document.getElementById("list"), form = document.querySelector("form");
form.elements.key.placeholder = words.key;
form.onsubmit = (event) => { event.preventDefault(); sessionStorage.freeholdKey = form.elements.key.value; form.hidden = true; show(); };
const bytes = (n) => n >= 1e9 ? (n / 1e9).toFixed(2) + " GB" : (n / 1e6).toFixed(1) + " MB";
const percent = (part, whole) => whole > 0 ? Math.round(100 * part / whole) + " %" : "–";
let last;
function rate(now, read) { return last && now.time > last.time ? Math.max(0, (read(now) - read(last)) / (now.time - last.time)).toFixed(1) : "–"; }
function fill(now) {
  const c = now.counters, cache = c.cache;
  const values = { model: now.model ?? "–", device: now.device ?? "–", running: now.running, waiting: now.waiting, streams: now.streams,
    decode: rate(now, (s) => s.counters.generatedTokens), prefill: rate(now, (s) => s.counters.promptTokens - s.counters.cachedTokens),
    hits: percent(cache.hits, cache.lookups), cached: percent(c.cachedTokens, c.promptTokens), memory: bytes(cache.memoryBytes), disk: bytes(cache.diskBytes), restarts: now.engineRestarts,
    ...(c.engram ? { ngrams: percent(c.engram.hits, c.engram.lookups), ngramRows: c.engram.rowsRead } : {}) };
  list.replaceChildren(...Object.entries(values).map(([name, value]) => {
    const box = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = words[name]; dd.textContent = value; box.append(dt, dd); return box; }));
  state.textContent = "Freehold " + now.version + " · " + (now.ready ? words[now.state] ?? words.ready : words.notReady + now.why);
  last = now;
}
async function show() {
  try {
    const key = sessionStorage.freeholdKey;
    const answer = await fetch("status.json", key ? { headers: { authorization: "Bearer " + key } } : {});
    if (answer.status === 401 || answer.status === 403) { form.hidden = false; return; }
    fill(await answer.json());
  } catch { state.textContent = words.gone; }
}
show(); setInterval(show, 2000);`;

export const statusPage = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Freehold</title><style>${style}</style></head>
<body><h1>Freehold</h1><p id="state">…</p><form hidden><input name="key" type="password" autocomplete="off"></form><dl id="list"></dl>
<p><a href="v1/models">/v1/models</a><a href="metrics">/metrics</a><a href="readyz">/readyz</a></p><script>${script}</script></body></html>
`;

const hashOf = (text: string) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

/** Only this script and this style run, and only this server is asked. */
export const statusPagePolicy = `default-src 'none'; script-src ${hashOf(script)}; style-src ${hashOf(style)}; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;
