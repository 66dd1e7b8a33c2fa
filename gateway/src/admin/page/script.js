"use strict";
// The page over the admin API. Whatever comes from the API becomes text, never markup.

const $ = (id) => document.getElementById(id);
const TOKEN = "trivium.token";
const EVERY = 5000;

/** An element: attributes (functions listen), then children; strings become text. */
function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// ── The API ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

class Refusal extends Error {
  constructor(status, error) {
    super(error.message || `the gateway answers ${status}`);
    Object.assign(this, { status, code: error.code, problems: error.problems || [] });
  }
}

async function api(method, path, body) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(TOKEN)}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Refusal(0, { message: "The gateway cannot be reached." });
  }
  const told = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refusal(response.status, told.error || {});
  return told;
}

// ── Words ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

const plain = new Intl.NumberFormat("en");
const cents = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const fine = new Intl.NumberFormat("en", { maximumSignificantDigits: 2, maximumFractionDigits: 9 });
const money = (n) => "$" + (n !== 0 && Math.abs(n) < 0.01 ? fine.format(n) : cents.format(n));
const amount = (unit, n) => (unit === "dollars" ? money(n) : plain.format(n));

function lasting(seconds) {
  for (const [size, name] of [[86400, "d"], [3600, "h"], [60, "m"]]) if (seconds >= size) return `${Math.round(seconds / size)}${name}`;
  return `${Math.max(0, Math.round(seconds))}s`;
}

function quick(ms) {
  if (ms === null) return "–";
  return ms < 0.1 ? "< 0.1 ms" : ms < 1000 ? `${ms.toFixed(ms < 10 ? 1 : 0)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function moment(text) {
  if (!text) return "";
  const at = new Date(text);
  return isNaN(at) ? text : at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: at.getUTCHours() || at.getUTCMinutes() ? "short" : undefined });
}

function notice(text, good) {
  $("notice").textContent = text || "";
  $("notice").className = good ? "good" : "";
  $("notice").hidden = !text;
}

// ── Asking ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** A dialog with fields. `act` does what is asked; what it throws is shown, and the dialog stays. */
function ask({ title, text, fields = [], verb, danger, act }) {
  const wrong = h("p", { class: "wrong", role: "alert", hidden: true });
  const inputs = fields.map((field) => field.options
    ? h("select", { name: field.name }, field.options.map(([value, label]) => h("option", { value }, label)))
    : h("input", { name: field.name, type: field.type || "text", placeholder: field.hint || "", maxlength: 200, autocomplete: "off", inputmode: field.inputmode, required: field.required }));
  const go = h("button", { class: danger ? "main danger" : "main", type: "submit" }, verb);
  const submit = async (event) => {
    event.preventDefault();
    go.disabled = true;
    wrong.hidden = true;
    try {
      const values = Object.fromEntries(fields.map((field, i) => [field.name, inputs[i].value.trim()]));
      const made = await act(values);
      if (made && made.key) showKey(made);
      else $("dialog").close();
      refresh();
    } catch (refusal) {
      wrong.textContent = refusal.message;
      wrong.hidden = false;
      go.disabled = false;
    }
  };
  $("dialog").replaceChildren(h("form", { submit },
    h("h2", { id: "dialog-title" }, title), text && h("p", null, text),
    fields.map((field, i) => h("label", null, field.label, inputs[i])), wrong,
    h("div", { class: "row" }, h("button", { type: "button", click: () => $("dialog").close() }, "Cancel"), go)));
  $("dialog").showModal();
}

/** A key, this once. */
function showKey(made) {
  const field = h("input", { class: "mono", readonly: true, "aria-label": "The key" });
  field.value = made.key;
  const copy = h("button", { type: "button", class: "main" }, "Copy");
  copy.addEventListener("click", async () => {
    field.select();
    // Off loopback a browser gives the clipboard to HTTPS only; the old way works everywhere.
    const done = await (navigator.clipboard ? navigator.clipboard.writeText(made.key).then(() => true, () => false) : false);
    copy.textContent = done || document.execCommand("copy") ? "Copied" : "Select and copy";
  });
  $("dialog").replaceChildren(h("h2", { id: "dialog-title" }, `A key for ${made.consumer}`),
    h("p", null, "It is shown this once: only its hash is kept. It can be used at once."),
    h("div", { class: "key" }, field, copy),
    h("div", { class: "row" }, h("button", { type: "button", click: () => $("dialog").close() }, "Done")));
  copy.focus();
}

const ENDS = [["", "never"], ["30d", "in 30 days"], ["90d", "in 90 days"], ["365d", "in a year"]];
const GRACE = [["0s", "at once"], ["1h", "in an hour"], ["24h", "in a day"], ["7d", "in a week"]];

const makeKey = (consumer) => ask({
  title: `New key for ${consumer}`, verb: "Make the key",
  fields: [{ name: "name", label: "What is it for?", hint: "laptop, CI, …" }, { name: "expires", label: "It ends", options: ENDS }, { name: "day", label: "or on this day", type: "date" }],
  act: ({ name, expires, day }) => api("POST", `/admin/consumers/${encodeURIComponent(consumer)}/keys`, { name: name || undefined, expires: day || expires || undefined }),
});

const rotateKey = (key) => ask({
  title: `Replace the key ${key.name || key.id}`, verb: "Make the new key",
  text: "A new key is made with the same name. The old one works until its grace is over.",
  fields: [{ name: "grace", label: "The old key ends", options: GRACE }],
  act: ({ grace }) => api("POST", `/admin/keys/${encodeURIComponent(key.id)}/rotate`, { grace }),
});

const revokeKey = (key) => ask({
  title: `Revoke the key ${key.name || key.id}?`, verb: "Revoke", danger: true, text: `Whoever uses this key of ${key.consumer} is locked out at once. This cannot be undone.`,
  act: () => api("DELETE", `/admin/keys/${encodeURIComponent(key.id)}`).then(() => null),
});

const resetLimit = (limit) => ask({
  title: "Forget what was used?", verb: "Reset", danger: true, text: `${limit.label}: ${amount(limit.unit, limit.used)} used so far would count no more. What requests under way have reserved stands.`,
  act: () => api("POST", "/admin/limits/reset", { limit: limit.limit }).then(() => null),
});

const topUp = (limit) => ask({
  title: "Top up", verb: "Top up", text: `${limit.label}. What you give counts for as long as something used now would.`,
  fields: [{ name: "amount", label: limit.unit === "dollars" ? "How many dollars more?" : `How many ${limit.unit.replace("_", " ")} more?`, inputmode: "decimal", required: true }],
  act: ({ amount }) => api("POST", "/admin/limits/top-up", { limit: limit.limit, amount }).then(() => null),
});

// ── Consumers ───────────────────────────────────────────────────────────────────────────────────────────────────────────

const opened = new Set();
let sought = "";

function limitLine(limit) {
  const whole = Math.max(limit.cap, limit.used + limit.reserved + limit.left) || 1;
  const part = (n) => {
    const piece = h("i");
    piece.style.width = `${Math.min(100, (100 * n) / whole)}%`;
    return piece;
  };
  const near = limit.used + limit.reserved >= 0.9 * whole;
  const words = [`${amount(limit.unit, limit.left)} left of ${amount(limit.unit, limit.cap)}`];
  if (limit.unit !== "concurrent") words.push(`${amount(limit.unit, limit.used)} used`);
  if (limit.reserved) words.push(`${amount(limit.unit, limit.reserved)} ${limit.unit === "concurrent" ? "under way" : "reserved"}`);
  if (whole > limit.cap) words.push("topped up");
  if (limit.resets_in_seconds !== null) words.push(`free again in ${lasting(limit.resets_in_seconds)}`);
  return h("div", { class: "limit" },
    h("div", { class: "row" }, h("span", { class: "small" }, limit.label, limit.strict ? " (strict)" : ""),
      limit.unit !== "concurrent" && h("span", { class: "end" },
        h("button", { class: "quiet", "data-focus": `t${limit.limit}`, click: () => topUp(limit) }, "Top up"),
        h("button", { class: "quiet", "data-focus": `r${limit.limit}`, click: () => resetLimit(limit) }, "Reset"))),
    h("div", { class: near ? "bar near" : "bar", role: "img", "aria-label": words.join(", ") }, part(limit.used), part(limit.reserved)),
    h("p", { class: "soft small" }, words.join(" · ")));
}

const STATES = { active: "chip good", expired: "chip", revoked: "chip bad" };

function keyTable(keys) {
  if (!keys.length) return h("p", { class: "soft small" }, "No keys yet.");
  return h("table", { class: "folds small" },
    h("thead", null, h("tr", null, ["Key", "State", "Made", "Ends", ""].map((name) => h("th", null, name)))),
    h("tbody", null, keys.map((key) => h("tr", null,
      h("td", { class: "name", "data-label": "Key" }, h("span", null, key.id ? key.name || h("span", { class: "mono" }, key.id) : "in the configuration")),
      h("td", { "data-label": "State" }, h("span", { class: STATES[key.state] || "chip" }, key.state)),
      h("td", { "data-label": "Made" }, moment(key.created)),
      h("td", { "data-label": "Ends" }, key.ends ? moment(key.ends) : "never"),
      h("td", { class: "acts" }, key.id && key.state === "active" && [
        h("button", { class: "quiet", "data-focus": `o${key.id}`, click: () => rotateKey(key) }, "Rotate"),
        h("button", { class: "quiet danger", "data-focus": `x${key.id}`, click: () => revokeKey(key) }, "Revoke")])))));
}

async function consumers() {
  const [{ consumers }, { limits }] = await Promise.all([api("GET", "/admin/consumers"), api("GET", "/admin/limits")]);
  const lists = new Map(await Promise.all(consumers.filter((c) => opened.has(c.name)).map(async (c) =>
    [c.name, (await api("GET", `/admin/consumers/${encodeURIComponent(c.name)}/keys`)).keys])));
  if (!consumers.length) return h("p", { class: "card empty" }, "No consumers are configured: everyone who reaches the gateway is served. They stand in the configuration, under ", h("code", null, "consumers"), ".");
  const cards = consumers.map((consumer) => {
    const { name } = consumer;
    // What it shares with others comes last.
    const own = limits.filter((limit) => limit.consumers.includes(name)).sort((a, b) => (a.consumers.length > 1) - (b.consumers.length > 1));
    const open = opened.has(name);
    const toggle = () => { if (!opened.delete(name)) opened.add(name); refresh(); };
    const card = h("section", { class: "card" },
      h("div", { class: "row" }, h("h3", null, name), consumer.groups.map((group) => h("span", { class: "chip" }, group)),
        h("span", { class: "end" },
          h("button", { class: "quiet", "aria-expanded": String(open), "data-focus": `k${name}`, click: toggle }, `${consumer.active_keys} active ${consumer.active_keys === 1 ? "key" : "keys"} ${open ? "▴" : "▾"}`),
          h("button", { class: "quiet", "data-focus": `n${name}`, click: () => { opened.add(name); makeKey(name); } }, "New key"))),
      open && keyTable(lists.get(name) || []),
      own.length ? own.map(limitLine) : h("p", { class: "soft small" }, "No limits."));
    card.dataset.words = [name, ...consumer.groups].join(" ").toLowerCase();
    return card;
  });
  const filter = () => cards.forEach((card) => { card.hidden = !card.dataset.words.includes(sought); });
  const find = h("input", { class: "find", type: "search", placeholder: "Find a consumer or group", "aria-label": "Find a consumer or group", "data-focus": "find" });
  find.value = sought;
  find.addEventListener("input", () => { sought = find.value.toLowerCase(); filter(); });
  filter();
  return h("div", null, h("div", { class: "row" }, h("h2", null, "Consumers"), h("span", { class: "soft" }, plain.format(consumers.length)), h("span", { class: "end" }, find)), cards);
}

// ── Targets ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function targets() {
  const { targets } = await api("GET", "/admin/targets");
  const chip = (t) => t.breaker === "closed" ? h("span", { class: "chip good" }, "closed")
    : t.breaker === "open" ? h("span", { class: "chip bad" }, `open, ${lasting(t.open_for_ms / 1000)}`) : h("span", { class: "chip warn" }, "half open");
  const close = async (target) => {
    try {
      await api("POST", "/admin/targets/close", { target });
      notice();
    } catch (refusal) {
      notice(refusal.message);
    }
    refresh();
  };
  const row = (t, model, to, target) => h("tr", null,
    h("td", { class: "name", "data-label": "Model" }, model),
    h("td", { class: "name", "data-label": "Goes to" }, to),
    h("td", { "data-label": "Breaker" }, chip(t)),
    h("td", { class: "number", "data-label": "Latency" }, quick(t.latency_ms)),
    h("td", { class: "number", "data-label": "In flight" }, plain.format(t.in_flight)),
    h("td", { class: "number", "data-label": "Tokens" }, plain.format(t.tokens)),
    h("td", { class: "acts" }, target && h("button", { "data-focus": `c${target}`, click: () => close(target) }, "Close it")));
  return h("div", null, h("h2", null, "Targets"), h("p", { class: "soft small" }, "Of this process. A breaker opens when a target fails again and again; then nothing is sent there for a while."),
    h("div", { class: "card wide" }, h("table", { class: "folds" },
      h("thead", null, h("tr", null, ["Model", "Goes to", "Breaker"].map((name) => h("th", null, name)), ["Latency", "In flight", "Tokens"].map((name) => h("th", { class: "number" }, name)), h("th"))),
      h("tbody", null, targets.map((t) => [row(t, t.model, h("span", null, t.to, t.fallback && h("span", { class: "soft small" }, " (fallback)")), t.breaker !== "closed" && t.target),
        t.models.map((m) => row(m, "", h("span", { class: "soft small" }, "* ", m.model)))])))));
}

// ── Spend ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** What was used in the last 30 days, told apart by one thing. */
async function usage(by) {
  const told = await api("GET", `/admin/usage?days=30&by=${by}`);
  return { ...told, rows: told.rows.map((row) => ({ ...row, name: row[by] || "–" })) };
}

/** A row for every day, also for those on which nothing was used. */
function everyDay({ from, to, rows }) {
  const known = new Map(rows.map((row) => [row.name, row]));
  const every = [];
  for (const day = new Date(`${from}T00:00Z`); every.length < 400; day.setUTCDate(day.getUTCDate() + 1)) {
    const name = day.toISOString().slice(0, 10);
    every.push(known.get(name) || { name, requests: 0, tokens: 0, dollars: 0 });
    if (name >= to) break;
  }
  return every;
}

function share(title, rows) {
  const sorted = [...rows].sort((a, b) => b.dollars - a.dollars || b.requests - a.requests).slice(0, 20);
  return h("div", { class: "card wide" }, h("h3", null, title), h("table", null,
    h("thead", null, h("tr", null, h("th", null, ""), ["Dollars", "Tokens", "Requests"].map((name) => h("th", { class: "number" }, name)))),
    h("tbody", null, sorted.map((row) => h("tr", null, h("td", { class: "name" }, row.name),
      h("td", { class: "number" }, money(row.dollars)), h("td", { class: "number" }, plain.format(row.tokens)), h("td", { class: "number" }, plain.format(row.requests)))))));
}

async function spend() {
  const [days, who, models] = await Promise.all(["day", "consumer", "model"].map(usage));
  const rows = days.rows.length ? everyDay(days) : [];
  const sum = (name) => rows.reduce((all, row) => all + row[name], 0);
  const most = Math.max(...rows.map((row) => row.dollars), 1e-9);
  const columns = rows.map((row) => {
    const words = `${row.name}: ${money(row.dollars)}, ${plain.format(row.requests)} requests, ${plain.format(row.tokens)} tokens`;
    const column = h("div", { role: "img", title: words, "aria-label": words });
    column.style.height = row.requests ? `${Math.max(1, (100 * row.dollars) / most)}%` : "0";
    return column;
  });
  return h("div", null, h("h2", null, "Spend, last 30 days"),
    h("div", { class: "stats" }, h("span", null, h("b", null, money(sum("dollars"))), "spent"), h("span", null, h("b", null, plain.format(sum("requests"))), "requests"), h("span", null, h("b", null, plain.format(sum("tokens"))), "tokens")),
    rows.length ? h("div", { class: "days" }, columns) : h("p", { class: "card empty" }, "Nothing was used yet."),
    rows.length > 0 && h("div", { class: "row soft small" }, rows[0].name, h("span", { class: "end" }, rows[rows.length - 1].name)),
    days.gaps.length > 0 && h("p", { class: "soft small" }, `Not all of it is there. ${days.gaps.join(" ")}`),
    rows.length > 0 && [share("By consumer", who.rows), share("By model", models.rows)]);
}

// ── Configuration ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** A tree as YAML. Strings are quoted wherever they could be taken for something else. */
function yaml(value, indent = "") {
  const plain = (v) => /^([A-Za-z_/][\w ./+-]*|\.\.?\/[\w./+-]*|\d+[A-Za-z]{1,3})$/.test(v) && !/^(true|false|null)$|\s$/i.test(v);
  const scalar = (v) => typeof v !== "string" ? String(v) : plain(v) ? v : JSON.stringify(v);
  if (Array.isArray(value)) return value.length ? value.map((v) => `\n${indent}- ${yaml(v, indent + "  ").trimStart()}`).join("") : " []";
  if (value && typeof value === "object") {
    const pairs = Object.entries(value);
    return pairs.length ? pairs.map(([k, v]) => `\n${indent}${scalar(k)}:${yaml(v, indent + "  ")}`).join("") : " {}";
  }
  return ` ${scalar(value)}`;
}

let problems = null;

async function configuration() {
  const { source, config } = await api("GET", "/admin/config");
  const reload = async () => {
    problems = null;
    try {
      await api("POST", "/admin/reload");
      notice("The configuration was loaded anew and is in force.", true);
    } catch (refusal) {
      problems = refusal.problems;
      notice(refusal.problems.length ? "The new configuration is not in force. What is wrong with it:" : refusal.message);
    }
    refresh();
  };
  return h("div", null, h("div", { class: "row" }, h("h2", null, "Configuration"), h("span", { class: "soft mono" }, source || "no file"),
    source && h("span", { class: "end" }, h("button", { "data-focus": "reload", click: reload }, "Load it anew"))),
    problems && problems.length > 0 && h("ul", { class: "problems card" }, problems.map((p) => h("li", null, p.path && h("code", null, p.path), p.path ? ": " : "", p.message))),
    h("p", { class: "soft small" }, "What is in force: files merged, variables filled in, secrets as ***. It is changed in the file."),
    h("pre", null, yaml(config).trimStart()));
}

// ── The frame ───────────────────────────────────────────────────────────────────────────────────────────────────────────

const TABS = { consumers: ["Consumers", consumers], targets: ["Targets", targets], spend: ["Spend", spend], configuration: ["Configuration", configuration] };
let hasSpend = false;
let turn = 0;

function current() {
  const name = location.hash.slice(1);
  return TABS[name] && (name !== "spend" || hasSpend) ? name : "consumers";
}

function frame() {
  const tab = (name, label, href) => h("a", { href: href || `#${name}`, "aria-current": name === current() && "page" }, label);
  $("tabs").replaceChildren(...Object.entries(TABS).filter(([name]) => name !== "spend" || hasSpend).map(([name, [label]]) => tab(name, label)), tab("docs", "API", "/docs/"));
  $("tabs").hidden = $("leave").hidden = false;
}

async function process() {
  const status = await fetch("/status").then((r) => r.json(), () => null);
  $("process").textContent = status ? `${status.version} · ${status.draining ? "draining" : "serving"} · ${plain.format(status.in_flight)} in flight` : "cannot be reached";
}

/** Draws the tab anew, and puts the focus back where it was. A slower answer never replaces a newer one. */
async function refresh() {
  const mine = ++turn;
  try {
    const [made] = await Promise.all([TABS[current()][1](), process()]);
    if (mine !== turn) return;
    const key = document.activeElement && document.activeElement.dataset.focus;
    const at = key === "find" ? document.activeElement.selectionStart : null;
    $("main").replaceChildren(made);
    if (!$("notice").classList.contains("good") && $("notice").dataset.away) notice();
    $("notice").dataset.away = "";
    const back = key && [...$("main").querySelectorAll("[data-focus]")].find((e) => e.dataset.focus === key);
    if (back) {
      back.focus({ preventScroll: true });
      if (at !== null) back.setSelectionRange(at, at);
    }
  } catch (refusal) {
    if (mine !== turn) return;
    if (refusal.status === 401 || refusal.code === "no_token") return enter(refusal.message, refusal.code === "no_token");
    notice(refusal.message);
    $("notice").dataset.away = "yes";
  }
}

/** Asks for the token; or says why there is none to ask for. */
function enter(why, closed) {
  sessionStorage.removeItem(TOKEN);
  turn++;
  $("dialog").close();
  $("tabs").hidden = $("leave").hidden = true;
  const field = h("input", { type: "password", autocomplete: "off", required: true });
  const submit = (event) => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN, field.value.trim());
    begin();
  };
  notice(closed ? "" : why);
  if (closed) return $("main").replaceChildren(h("p", { class: "card empty" }, why));
  $("main").replaceChildren(h("section", { class: "card enter" }, h("h2", null, "Token"),
    h("p", { class: "soft small" }, "It stands in ", h("code", null, "admin.token"), " in the gateway's data folder, or in its configuration. The gateway says where when it starts. It is kept in this tab only."),
    h("form", { submit }, h("label", null, "Token of the admin API", field), h("button", { class: "main", type: "submit" }, "Enter"))));
  field.focus();
}

async function begin() {
  notice();
  try {
    await api("GET", "/admin/consumers");
  } catch (refusal) {
    // Who comes for the first time has shown no wrong token.
    return enter(sessionStorage.getItem(TOKEN) || refusal.status !== 401 ? refusal.message : "", refusal.code === "no_token");
  }
  if (location.hash === "#docs") return location.replace("/docs/");
  hasSpend = await usage("day").then(() => true, () => false);
  frame();
  refresh();
}

window.addEventListener("hashchange", () => {
  if (!sessionStorage.getItem(TOKEN)) return;
  notice();
  problems = null;
  frame();
  refresh();
});
$("leave").addEventListener("click", () => enter(""));
setInterval(() => {
  if (!document.hidden && sessionStorage.getItem(TOKEN) && !$("tabs").hidden && current() !== "configuration" && !$("dialog").open) refresh();
}, EVERY);
process();
begin();
