// Shows what `cell serve` tells: `full` first, then `state`, `note` and `log`. What guests say is put into the page as text, never as HTML.

const KEPT = 300;       // looks in a plot: ten minutes
const MOST_LINES = 2000; // of a log
const MOST_NOTES = 100;
const TROUBLE = ["waiting", "failed", "unhealthy"];
const WORDS = {
  starting: "starting", healthy: "healthy", suspended: "asleep", unhealthy: "checks fail",
  waiting: "ended, starts again", failed: "failed", stopped: "stopped", none: "no VM",
};
const PLOTS = [
  { title: "CPU", unit: cpus, ceiling: decimal, least: 100, lines: [["VMs", 0], ["host", 6]] },
  { title: "Memory", unit: bytes, ceiling: binary, least: 1 << 20, lines: [["VMs", 1], ["host", 7]] },
  { title: "Disk", unit: rate, ceiling: binary, least: 1024, lines: [["read", 2], ["written", 3]] },
  { title: "Network", unit: rate, ceiling: binary, least: 1024, lines: [["received", 4], ["sent", 5]] },
];

let state = null;
let history = null;
let notes = [];
let chosen = null;
let source = null;

const find = (id) => document.getElementById(id);

/** Makes an element; children are elements or texts. */
function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") element.className = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/** Sets a text only if it has changed, so that a selection stays. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function digits(number) {
  return number >= 100 ? number.toFixed(0) : number >= 10 ? number.toFixed(1) : number.toFixed(2);
}

function cpus(thousandths) {
  return `${digits(thousandths / 1000)} CPU`;
}

function bytes(number) {
  if (number === null || number === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) { number /= 1024; unit += 1; }
  return unit === 0 ? `${Math.round(number)} B` : `${digits(number)} ${units[unit]}`;
}

function rate(number) {
  return `${bytes(number)}/s`;
}

function since(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** The worst phase of an app's VMs. */
function worst(app) {
  const order = ["failed", "waiting", "unhealthy", "starting", "healthy", "suspended", "stopped"];
  return order.find((phase) => app.vms.some((vm) => vm.phase === phase)) ?? "none";
}

// ---- Plots

const SVG = "http://www.w3.org/2000/svg";

function drawing(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** Points from the right edge on: the last look is now. */
function points(values, most) {
  const first = KEPT - values.length;
  return values.map((value, place) => `${first + place},${(100 - (100 * (value ?? 0)) / most).toFixed(1)}`).join(" ");
}

/** A round number that is not below this one. */
function decimal(most) {
  const power = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= most) ?? most;
}

/** The same, in KiB, MiB and so on. */
function binary(most) {
  const power = 1024 ** Math.floor(Math.log2(Math.max(most, 1)) / 10);
  return Math.min(decimal(most / power), 1024) * power;
}

function makePlot({ title, lines }) {
  const svg = drawing("svg", { class: "plot", viewBox: `0 0 ${KEPT} 100`, preserveAspectRatio: "none", role: "img" });
  for (const y of [0, 50, 100]) svg.append(drawing("line", { class: "grid", x1: 0, x2: KEPT, y1: y, y2: y }));
  lines.forEach((_, place) => svg.append(drawing("polyline", { class: place ? "second" : "first" })));
  const keys = lines.map((_, place) => make("span", { class: place ? "key second" : "key" }));
  const axis = make("div", { class: "axis" }, make("span", {}, "10 minutes ago"), make("span", { class: "top" }), make("span", {}, "now"));
  return make("figure", {}, make("figcaption", {}, make("b", {}, title), ...keys), svg, axis);
}

function drawPlots(rows) {
  const plots = find("plots");
  if (!plots.firstChild) plots.append(...PLOTS.map(makePlot));
  PLOTS.forEach(({ title, unit, ceiling, least, lines }, place) => {
    const figure = plots.children[place];
    // What the host uses is not told of one app.
    const series = lines.map(([, column]) => rows.map((row) => row[column]).filter((value) => value !== undefined));
    const highest = Math.max(...series.flat().map((value) => value ?? 0), 0);
    const most = ceiling(Math.max(highest, least));
    const last = series.map((values, at) => (values.length ? `${lines[at][0]} ${unit(values.at(-1) ?? 0)}` : ""));
    figure.querySelectorAll("polyline").forEach((line, at) => line.setAttribute("points", points(series[at], most)));
    figure.querySelectorAll(".key").forEach((key, at) => { say(key, last[at]); key.hidden = !last[at]; });
    say(figure.querySelector(".top"), `top: ${unit(most)}`);
    const told = last.filter((text) => text).join(", ");
    figure.querySelector("svg").setAttribute("aria-label", `${title} now: ${told}; at most ${unit(highest)} in ten minutes`);
  });
}

function makeSpark() {
  const svg = drawing("svg", { class: "spark", viewBox: `0 0 ${KEPT} 100`, preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(drawing("polyline", {}));
  return svg;
}

// ---- Tables

/** Keeps a row for each key, in their order, so that nothing is made anew that is there. */
function keyed(body, items, key, makeRow, fill) {
  const known = new Map([...body.children].map((row) => [row.dataset.key, row]));
  items.forEach((item, place) => {
    const name = String(key(item));
    let row = known.get(name);
    known.delete(name);
    if (!row) { row = makeRow(item); row.dataset.key = name; }
    if (body.children[place] !== row) body.insertBefore(row, body.children[place] ?? null);
    fill(row, item);
  });
  for (const row of known.values()) row.remove();
}

function cells(count) {
  return make("tr", {}, ...Array.from({ length: count }, () => make("td", {}, make("span"))));
}

function tell(row, texts) {
  texts.forEach((text, place) => { if (text !== null) say(row.children[place].firstChild, text); });
}

function showPhase(cell, phase) {
  cell.firstChild.className = `state ${phase}`;
  say(cell.firstChild, WORDS[phase] ?? phase);
}

function used(figures) {
  if (!figures) return ["–", "–", "–", "–"];
  return [cpus(figures[0]), bytes(figures[1]), rate(figures[2] + figures[3]), rate(figures[4] + figures[5])];
}

function makeApp(app) {
  const row = cells(10);
  const button = make("button", { class: "app", type: "button" }, app.app);
  button.addEventListener("click", () => { location.hash = app.app; });
  row.children[0].replaceChildren(button);
  row.children[5].replaceChildren(makeSpark());
  return row;
}

function fillApp(row, app) {
  const rows = history.apps[app.app] ?? [];
  const [cpu, memory, disk, network] = used(app.figures);
  const names = app.services.flatMap((service) => service.names);
  const running = app.vms.filter((vm) => ["healthy", "unhealthy", "starting"].includes(vm.phase)).length;
  tell(row, [null, null, `${running} of ${app.count}`, app.release === null ? "–" : String(app.release), cpu, null, memory, disk, network,
    names.join(", ") || app.name]);
  showPhase(row.children[1], worst(app));
  const most = Math.max(1000, ...rows.map((figures) => figures[0]));
  row.querySelector("polyline").setAttribute("points", points(rows.map((figures) => figures[0]), most));
  row.classList.toggle("chosen", app.app === chosen);
  row.querySelector("button").setAttribute("aria-pressed", String(app.app === chosen));
}

function showApps() {
  const wanted = find("find").value.trim().toLowerCase();
  const apps = state.apps.filter((app) => app.app.includes(wanted) || app.services.some((service) => service.names.some((name) => name.includes(wanted))));
  keyed(find("apps"), apps, (app) => app.app, makeApp, fillApp);
  find("none").hidden = state.apps.length > 0;
}

function showOne() {
  const app = state.apps.find((one) => one.app === chosen);
  find("one").hidden = !app;
  if (!app) return;
  say(find("one-title"), `${app.app}: VMs`);
  keyed(find("vms"), app.vms, (vm) => `${vm.vm}/${vm.release}`, () => cells(10), (row, vm) => {
    const [cpu, memory, disk, network] = used(vm.figures);
    tell(row, [String(vm.vm), null, since(vm.seconds), String(vm.restarts), String(vm.release), cpu, memory, disk, network, vm.address]);
    showPhase(row.children[1], vm.phase);
    row.children[1].className = "why";
    if (vm.why) say(row.children[1].firstChild, `${WORDS[vm.phase] ?? vm.phase}: ${vm.why}`);
  });
}

// ---- Trouble, and what has happened

function lastWords(app, vm) {
  const note = notes.findLast((one) => one.app === app && one.vm === vm && TROUBLE.includes(one.phase));
  return note?.lines.length ? make("pre", {}, note.lines.join("\n")) : "";
}

function showTrouble() {
  const section = find("trouble");
  const all = state.apps.flatMap((app) => app.vms.filter((vm) => TROUBLE.includes(vm.phase)).map((vm) => [app, vm]));
  const told = JSON.stringify(all.map(([app, vm]) => [app.app, vm.vm, vm.phase, vm.why, vm.restarts]));
  // Made anew only if it has changed, so that it is read aloud once.
  if (section.dataset.told !== told) {
    section.dataset.told = told;
    section.replaceChildren(make("h2", {}, all.length === 1 ? "A VM is in trouble" : `${all.length} VMs are in trouble`));
    for (const [app, vm] of all.slice(0, 20)) {
      const restarts = vm.restarts ? `, started again ${vm.restarts} times` : "";
      section.append(make("p", {}, make("b", {}, `${app.app}, VM ${vm.vm}`), ` (release ${vm.release}${restarts}): ${WORDS[vm.phase]}: ${vm.why ?? ""}`,
        lastWords(app.app, vm.vm)));
    }
  }
  section.hidden = all.length === 0;
}

function makeNote(note) {
  const at = new Date(note.at);
  const time = make("time", { datetime: at.toISOString() }, at.toLocaleTimeString());
  const item = make("li", {}, time, make("span", { class: `state ${note.phase}` }, `${note.app}, VM ${note.vm}`),
    ` (release ${note.release}): ${WORDS[note.phase] ?? note.phase}${note.why ? `: ${note.why}` : ""}`);
  if (note.lines.length) item.append(make("details", {}, make("summary", {}, "Its last lines"), make("pre", {}, note.lines.join("\n"))));
  return item;
}

function showNote(note) {
  const list = find("notes");
  list.prepend(makeNote(note));
  while (list.children.length > MOST_NOTES) list.lastChild.remove();
}

// ---- Logs

function showLog({ left_out: leftOut, lines }) {
  const log = find("log");
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const added = lines.map(({ vm, line }) => make("div", {}, make("b", {}, `VM ${vm}`), line));
  if (leftOut) added.unshift(make("div", {}, make("b", {}, `${leftOut} lines before are left out`)));
  log.append(...added);
  while (log.children.length > MOST_LINES) log.firstChild.remove();
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

// ---- What comes

function show() {
  const vms = state.apps.flatMap((app) => app.vms);
  const count = (...phases) => vms.filter((vm) => phases.includes(vm.phase)).length;
  const trouble = count(...TROUBLE);
  const { cpus: hostCpus, memory, disk } = state.size;
  say(find("summary"), `${state.apps.length} apps · ${count("healthy", "starting")} VMs run · ${count("suspended")} sleep · ${trouble} in trouble · ` +
    `host: ${digits(state.host[0] / 1000)} of ${hostCpus} CPUs, ${bytes(state.host[1])} of ${bytes(memory)} memory, ${bytes(state.host[2])} of ${bytes(disk)} disk`);
  document.title = trouble ? `(${trouble}) cell` : "cell";
  const isOne = state.apps.some((app) => app.app === chosen);
  say(find("use-title"), isOne ? chosen : "All VMs");
  drawPlots(isOne ? history.apps[chosen] ?? [] : history.all.map((row, place) => [...row, ...(history.host[place] ?? [])]));
  showTrouble();
  showApps();
  showOne();
}

function add(rows, row) {
  rows.push(row);
  if (rows.length > KEPT) rows.shift();
}

function onState(next) {
  if (next.look > state.look) {
    add(history.all, next.all);
    add(history.host, next.host);
    for (const app of next.apps) if (app.figures) add(history.apps[app.app] ??= [], app.figures);
    for (const name of Object.keys(history.apps)) if (!next.apps.some((app) => app.app === name)) delete history.apps[name];
  }
  state = next;
  show();
}

function onFull(full) {
  ({ history, notes, ...state } = full);
  // An app may be called `constructor`.
  history.apps = Object.assign(Object.create(null), history.apps);
  find("notes").replaceChildren();
  find("log").replaceChildren();
  notes.forEach(showNote);
  show();
  link("Live", false);
}

function onNote(note) {
  notes.push(note);
  if (notes.length > MOST_NOTES) notes.shift();
  showNote(note);
}

function link(text, isLost) {
  say(find("link"), text);
  find("link").className = isLost ? "lost" : "";
}

/** One stream for all, since browsers have few connections to one place. */
function connect() {
  source?.close();
  source = new EventSource(chosen ? `/api/events?log=${encodeURIComponent(chosen)}` : "/api/events");
  const on = (name, act) => source.addEventListener(name, (event) => act(JSON.parse(event.data)));
  on("full", onFull);
  on("state", (next) => { if (state) onState(next); });
  on("note", onNote);
  on("log", showLog);
  source.addEventListener("error", () => {
    link("cell serve does not answer; what is shown is old", true);
    // After an answer that is none, a browser does not try again by itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 3000);
  });
}

function choose() {
  const wanted = location.hash.slice(1);
  // It becomes part of an address.
  chosen = /^[a-z0-9-]{1,40}$/.test(wanted) ? wanted : null;
  connect();
}

addEventListener("hashchange", choose);
find("find").addEventListener("input", () => { if (state) show(); });
find("close").addEventListener("click", () => { location.hash = ""; });
choose();
