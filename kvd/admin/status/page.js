"use strict";

// The page reads /status.json each second, and /history.json for what was before: once,
// and again for each step of the last hour. The daemon computes all numbers; the page draws
// them.

const POLL_MS = 1000;
const GAP_SECONDS = 3;

const byId = (id) => document.getElementById(id);
const samples = [];
let kept = 300;
let steps = [];
let keptSteps = 360;
let stepSeconds = 10;
let hourCursor = null;
let hourRead = 0;
let answered = 0;
let daemon = null;
let cursor = null;

// -- formatting numbers ---------------------------------------------------------

const none = "–";

function short(number, base, units, digits = 3) {
  let unit = 0;
  while (number >= base && unit < units.length - 1) {
    number /= base;
    unit += 1;
  }
  const decimals = number >= 100 ? 0 : number >= 10 ? 1 : 2;
  return number.toFixed(Math.min(decimals, digits - 1)) + units[unit];
}

function count(number) {
  if (number == null) return none;
  if (number < 100000) {
    const decimals = number < 10 && !Number.isInteger(number) ? 1 : 0;
    return number.toLocaleString("en", { maximumFractionDigits: decimals });
  }
  return short(number, 1000, ["", "k", "M", "G", "T"]);
}

function bytes(number) {
  if (number == null) return none;
  if (number < 1000) return number.toFixed(0) + " B";
  return short(number, 1000, [" B", " kB", " MB", " GB", " TB"]);
}

function seconds(number) {
  if (number == null) return none;
  if (number < 0.001) return (number * 1e6).toFixed(0) + " µs";
  if (number < 1) return (number * 1e3).toFixed(number < 0.01 ? 1 : 0) + " ms";
  return number.toFixed(number < 10 ? 1 : 0) + " s";
}

function share(number) {
  return number == null ? none : Math.round(number * 100) + " %";
}

function index(number) {
  return number == null ? none : number.toFixed(3);
}

function duration(total) {
  const days = Math.floor(total / 86400);
  const hours = Math.floor(total / 3600) % 24;
  const minutes = Math.floor(total / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes) return `${minutes} min ${Math.floor(total % 60)} s`;
  return `${Math.floor(total)} s`;
}

// -- elements -----------------------------------------------------------------

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function make(name, attributes = {}, text = "") {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    element.setAttribute(key, value);
  }
  element.textContent = text;
  return element;
}

function draw(name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) {
    element.setAttribute(key, value);
  }
  element.textContent = text;
  return element;
}

function add(list, value) {
  return list.reduce((sum, item) => sum + (value(item) ?? 0), 0);
}

// -- the head -----------------------------------------------------------------

function showFacts(status) {
  const facts = {
    policy: policyInForce(status),
    shadow: status.shadow ? shadowName(status.shadow) : "none",
    processes: status.procs || "0, twistd serves",
    store: status.store,
    durability: status.durability,
    at: status.addresses.join(", "),
    up: duration(status.uptime_seconds),
    process: status.pid,
  };
  const list = byId("facts");
  for (const [name, value] of Object.entries(facts)) {
    let fact = list.querySelector(`[data-fact="${name}"]`);
    if (!fact) {
      fact = make("div", { "data-fact": name });
      fact.append(make("dt", {}, name), make("dd"));
      list.append(fact);
    }
    put(fact.lastChild, String(value));
  }
  put(byId("version"), status.version);
  document.title = `kvd: ${status.policy}, ${status.workers.length} workers`;
}

// The policy, and its fallbacks at addresses where the kernel does not run its program.
function policyInForce(status) {
  const others = new Set(status.fallbacks.map((fallback) => fallback.by));
  return [others.size ? `not ${status.policy}` : status.policy, ...others].join(" but ");
}

function showLive(kind, words) {
  byId("live").className = `live ${kind}`;
  put(byId("live").lastChild, words);
  document.body.classList.toggle("stale", kind === "off" && latest !== null);
}

// What is wrong now, if anything: above all numbers.
function showAlarm(status) {
  const alarm = byId("alarm");
  alarm.hidden = status.ready !== false;
  put(alarm, status.ready === false ? `Not ready: ${status.readiness}` : "");
}

// -- the tiles ----------------------------------------------------------------

// Jain's index times n: how many evenly loaded workers n workers correspond to.
function effectiveWorkers(balance, workers) {
  if (balance == null) return "no requests";
  if (workers < 2) return "one worker";
  return `equals ${(balance * workers).toFixed(1)} of ${workers} workers`;
}

// What there was in the steps of the last hour: of kinds such as 4xx.
function inTheHour(kind) {
  return Math.round(add(steps, (step) => step.statuses_per_second[kind] * stepSeconds));
}

function errors(status, now, kind) {
  return [count(now?.statuses_per_second[kind]),
    `${count(inTheHour(kind))} in the last hour, ${count(status.totals.statuses[kind])} in all`,
    now?.statuses_per_second[kind] > 0];
}

function showTiles(status, now) {
  const alive = status.workers.filter((row) => "requests" in row);
  const { totals } = status;
  const tiles = [
    ["5xx", "5xx / s", ...errors(status, now, "5xx")],
    ["4xx", "4xx / s", ...errors(status, now, "4xx").slice(0, 2)],
    ["latency", "Latency, 99 % below", seconds(now?.latency_p99_seconds),
      `median ${seconds(now?.latency_p50_seconds)}`],
    ["requests", "Requests / s", count(now?.requests_per_second),
      `${count(totals.requests)} in all`],
    ["progress", "In progress", count(add(alive, (row) => row.in_progress)),
      "requests, now"],
    ["open", "Connections", count(add(alive, (row) => row.open)),
      `${count(totals.accepted)} in all`],
    ["in", "Received / s", bytes(now?.bytes_in_per_second),
      `${bytes(totals.bytes_in)} in all`],
    ["out", "Sent / s", bytes(now?.bytes_out_per_second),
      `${bytes(totals.bytes_out)} in all`],
    ["balance", "Balance of requests", index(now?.balance_requests),
      effectiveWorkers(now?.balance_requests, status.workers.length)],
  ];
  const list = byId("tiles");
  for (const [key, title, value, note, alarm] of tiles) {
    let tile = list.querySelector(`[data-tile="${key}"]`);
    if (!tile) {
      tile = make("div", { class: "tile", "data-tile": key });
      tile.append(make("h3", {}, title), make("b"), make("p"));
      list.append(tile);
    }
    put(tile.children[1], value);
    put(tile.children[2], note);
    tile.classList.toggle("alarm", Boolean(alarm));
  }
}

// -- the disk -----------------------------------------------------------------

// Title, what is used, what there is, and words.
function diskBars(status) {
  const bars = [];
  const disk = status.disk;
  if (disk?.bytes) {
    bars.push(["File system", disk.bytes - disk.free_bytes, disk.bytes,
      `${bytes(disk.free_bytes)} of ${bytes(disk.bytes)} free`]);
  }
  if (disk?.inodes) {
    bars.push(["Inodes", disk.inodes - disk.free_inodes, disk.inodes,
      `${count(disk.free_inodes)} of ${count(disk.inodes)} free`]);
  }
  for (const quota of [...status.usage, ...(status.near ? [status.near] : [])]) {
    const where = quota === status.near ? "Near cache" : `Below ${quota.prefix}`;
    const removed = quota.evicted ? `, ${count(quota.evicted)} evicted` : "";
    bars.push([where, quota.taken, quota.limit,
      bytes(quota.taken) + (quota.limit == null ? "" : ` of at most ${bytes(quota.limit)}`)
      + `, ${count(quota.values)} values${removed}`]);
  }
  return bars;
}

function showDisk(status) {
  const bars = diskBars(status);
  byId("disk-card").hidden = !bars.length && !status.disk;
  put(byId("disk-legend"), status.disk?.complaint || status.store);
  byId("disk-legend").classList.toggle("alarm", Boolean(status.disk?.complaint));
  const list = byId("disk");
  while (list.children.length > bars.length) list.lastChild.remove();
  bars.forEach(([title, used, all, words], position) => {
    if (!list.children[position]) {
      const one = make("div");
      const meter = make("div", { class: "meter" });
      meter.append(make("i"));
      one.append(make("h3"), meter, make("p"));
      list.append(one);
    }
    const [heading, meter, note] = list.children[position].children;
    const part = all ? used / all : 0;
    put(heading, title);
    put(note, words + (all ? ` (${share(part)} used)` : ""));
    meter.hidden = !all;
    meter.firstChild.style.setProperty("--share", Math.min(1, part));
    meter.classList.toggle("near-full", part >= 0.85);
    meter.classList.toggle("full", part >= 0.95);
  });
}

// -- events -------------------------------------------------------------------

function showEvents(status) {
  const list = byId("events");
  const events = [...status.events].reverse();
  const key = events.length ? `${events.length} ${events[0].at}` : "none";
  put(byId("events-legend"), events.length ? `${events.length}, newest first` : "");
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...events.map((event) => {
    const item = make("li", { class: event.level });
    const date = new Date(event.at * 1000);
    item.append(
      make("time", { datetime: date.toISOString() }, date.toLocaleString()),
      make("b", { class: event.kind }, event.kind), make("span", {}, event.text));
    return item;
  }));
  if (!events.length) list.append(make("li", {}, "Nothing since the start."));
}

// -- charts over time ---------------------------------------------------------

const MARGIN = { left: 40, right: 8, top: 8, bottom: 20 };

function frame(svg) {
  const { width, height } = svg.getBoundingClientRect();
  const newest = samples.length ? samples[samples.length - 1].monotonic_seconds : 0;
  const right = width - MARGIN.right;
  const bottom = height - MARGIN.bottom;
  const perSecond = (right - MARGIN.left) / kept;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  return {
    svg, width, right, bottom, perSecond, points: samples, gap: GAP_SECONDS,
    x: (at) => right - (newest - at) * perSecond,
    y: (part) => bottom - part * (bottom - MARGIN.top),
  };
}

function drawScale({ svg, right, y }, most, label, steps = 4) {
  for (let step = 0; step <= steps; step += 1) {
    const at = y(step / steps);
    svg.append(
      draw("line", { class: "grid", x1: MARGIN.left, x2: right, y1: at, y2: at }),
      draw("text", { x: MARGIN.left - 7, y: at + 4, "text-anchor": "end" },
        label((most * step) / steps)),
    );
  }
}

function drawTimes({ svg, width, right, bottom, perSecond }) {
  for (let ago = 0; ago <= kept; ago += width < 340 ? 120 : 60) {
    const at = right - ago * perSecond;
    const anchor = ago ? "middle" : "end";
    svg.append(draw("text", { x: at, y: bottom + 15, "text-anchor": anchor },
      ago ? `${ago / 60} min ago` : "now"));
  }
}

// -- charts of the last hour ----------------------------------------------------

function hourFrame(svg) {
  const chart = frame(svg);
  const newest = steps.length ? steps[steps.length - 1].monotonic_seconds : 0;
  chart.perSecond = (chart.right - MARGIN.left) / (keptSteps * stepSeconds);
  chart.x = (at) => chart.right - (newest - at) * chart.perSecond;
  chart.points = steps;
  chart.gap = GAP_SECONDS * stepSeconds;
  return chart;
}

function drawMinutes({ svg, right, bottom, perSecond }) {
  for (const ago of [0, 15, 30, 45, 60]) {
    const anchor = ago === 0 ? "end" : ago === 60 ? "start" : "middle";
    svg.append(draw("text", { x: right - ago * 60 * perSecond, y: bottom + 15,
      "text-anchor": anchor }, ago ? `${ago} min` : "now"));
  }
}

function stepAt() {
  if (!steps.length) return null;
  const newest = steps[steps.length - 1];
  if (hourCursor === null) return newest;
  const from = (step) => Math.abs(newest.monotonic_seconds - step.monotonic_seconds - hourCursor);
  return steps.reduce((best, step) => (from(step) < from(best) ? step : best));
}

function legend(id, ...entries) {
  const at = stepAt();
  const time = at && hourCursor !== null ? new Date(at.at * 1000).toLocaleTimeString() : "";
  byId(id).replaceChildren(time, ...entries.flatMap(
    ([kind, words]) => [make("i", { class: kind }), words]));
}

function showHourCursor(chart) {
  if (hourCursor === null || !steps.length) return;
  const x = chart.right - hourCursor * chart.perSecond;
  chart.svg.append(
    draw("line", { class: "cursor", x1: x, x2: x, y1: MARGIN.top, y2: chart.bottom }));
}

function rateLabel(value) {
  return short(value, 1000, ["", "k", "M"])
    .replace(/(\.\d*?)0+(\D?)$/, "$1$2").replace(/\.(\D?)$/, "$1");
}

function showErrors() {
  const of = (kind) => (step) => step.statuses_per_second[kind];
  const most = roundUp(Math.max(...["4xx", "5xx"].flatMap((kind) => steps.map(of(kind))), 1));
  const chart = hourFrame(byId("errors"));
  drawScale(chart, most, rateLabel);
  drawMinutes(chart);
  for (const [kind, style] of [["4xx", "second"], ["5xx", "bad"]]) {
    if (kind === "5xx") drawArea(chart, (step) => of(kind)(step) / most, "bad");
    drawLine(chart, style, (step) => of(kind)(step) / most);
  }
  showHourCursor(chart);
  const step = stepAt();
  if (step) {
    legend("errors-legend", ["second", `4xx ${count(of("4xx")(step))} / s`],
      ["bad", `5xx ${count(of("5xx")(step))} / s`]);
  }
}

function showLatency() {
  const all = steps.flatMap((step) => [step.latency_p50_seconds, step.latency_p99_seconds])
    .filter((value) => value != null && value > 0);
  const low = Math.floor(Math.log10(Math.min(1e-4, ...all)));
  const high = Math.max(low + 2, Math.ceil(Math.log10(Math.max(1e-3, ...all))));
  const part = (value) => (value == null ? null
    : Math.max(0, (Math.log10(Math.max(value, 1e-9)) - low) / (high - low)));
  const chart = hourFrame(byId("latency"));
  drawScale(chart, high - low, (power) => seconds(10 ** (low + power)).replace(".0", ""),
    high - low);
  drawMinutes(chart);
  drawLine(chart, "first", (step) => part(step.latency_p50_seconds));
  drawLine(chart, "second", (step) => part(step.latency_p99_seconds));
  showHourCursor(chart);
  const step = stepAt();
  if (step) {
    legend("latency-legend", ["first", `median ${seconds(step.latency_p50_seconds)}`],
      ["second", `99 % below ${seconds(step.latency_p99_seconds)}`]);
  }
}

function showThroughput() {
  const of = (step) => add(Object.values(step.statuses_per_second), (rate) => rate);
  const most = roundUp(Math.max(4, ...steps.map(of)));
  const chart = hourFrame(byId("through"));
  drawScale(chart, most, rateLabel);
  drawMinutes(chart);
  drawArea(chart, (step) => of(step) / most);
  drawLine(chart, "first", (step) => of(step) / most);
  showHourCursor(chart);
  const step = stepAt();
  if (step) {
    legend("through-legend", ["first", `${count(of(step))} / s, ${bytes(step.bytes_in_per_second)}`
      + ` in, ${bytes(step.bytes_out_per_second)} out`]);
  }
}

// A line has gaps where there is no value, or where no sample was taken.
function stretches(chart, value) {
  const all = [];
  let before = null;
  for (const sample of chart.points) {
    const number = value(sample);
    const x = chart.x(sample.monotonic_seconds);
    if (number == null || x < MARGIN.left) {
      before = null;
      continue;
    }
    if (before === null || sample.monotonic_seconds - before > chart.gap) all.push([]);
    all[all.length - 1].push([x, chart.y(number)]);
    before = sample.monotonic_seconds;
  }
  return all;
}

function path(points) {
  return "M" + points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join("L");
}

function drawLine(chart, kind, value) {
  for (const points of stretches(chart, value)) {
    // A single point would be invisible.
    if (points.length === 1) points.push([points[0][0] + 1.5, points[0][1]]);
    chart.svg.append(draw("path", { class: `line ${kind}`, d: path(points) }));
  }
}

function drawArea(chart, value, kind = "") {
  for (const points of stretches(chart, value)) {
    const last = points[points.length - 1][0];
    const d = `${path(points)}L${last},${chart.bottom}L${points[0][0]},${chart.bottom}Z`;
    chart.svg.append(draw("path", { class: `area ${kind}`, d }));
  }
}

function pointedAt() {
  if (!samples.length) return null;
  if (cursor === null) return samples[samples.length - 1];
  const newest = samples[samples.length - 1].monotonic_seconds;
  const from = (sample) => Math.abs(sample.monotonic_seconds - (newest - cursor));
  return samples.reduce((best, sample) => (from(sample) < from(best) ? sample : best));
}

function drawCursor(chart) {
  if (cursor === null || !samples.length) return;
  const x = chart.right - cursor * chart.perSecond;
  chart.svg.append(
    draw("line", { class: "cursor", x1: x, x2: x, y1: MARGIN.top, y2: chart.bottom }));
}

function when(sample) {
  return cursor === null ? "" : new Date(sample.at * 1000).toLocaleTimeString() + " ";
}

function showBalance(workers) {
  const chart = frame(byId("balance"));
  drawScale(chart, 1, (value) => value.toFixed(2));
  drawTimes(chart);
  if (workers > 1) {
    const at = chart.y(1 / workers);
    chart.svg.append(draw("line",
      { class: "limit", x1: MARGIN.left, x2: chart.right, y1: at, y2: at }));
    put(byId("one-share"), `1/${workers} (dashed)`);
  }
  drawLine(chart, "second", (sample) => sample.balance_busy);
  drawLine(chart, "first", (sample) => sample.balance_requests);
  drawCursor(chart);
  const sample = pointedAt();
  if (sample) {
    byId("balance-legend").replaceChildren(
      when(sample), make("i", { class: "first" }),
      `requests ${index(sample.balance_requests)}`,
      make("i", { class: "second" }), `busy time ${index(sample.balance_busy)}`);
  }
}

// The next larger round number.
function roundUp(number) {
  const power = 10 ** Math.floor(Math.log10(Math.max(number, 1)));
  return [1, 2, 4, 5, 8, 10].map((n) => n * power).find((n) => n >= number);
}

function showRate() {
  const most = roundUp(Math.max(4, ...samples.map((s) => s.requests_per_second)));
  const chart = frame(byId("rate"));
  drawScale(chart, most, rateLabel);
  drawTimes(chart);
  const part = (sample) => sample.requests_per_second / most;
  drawArea(chart, part);
  drawLine(chart, "first", part);
  drawCursor(chart);
  const sample = pointedAt();
  if (sample) {
    put(byId("rate-legend"), when(sample) + `${count(sample.requests_per_second)} / s,`
      + ` 99 % below ${seconds(sample.latency_p99_seconds)}`);
  }
}

// -- worker utilisation ----------------------------------------------------------

function colour(name) {
  const text = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
}

// By the square root, so that little work can be distinguished from none.
function makeShades() {
  const empty = colour("--cell-empty");
  const full = colour("--cell-full");
  return Array.from({ length: 101 }, (_, busy) => {
    const part = Math.sqrt(busy / 100);
    return `rgb(${empty.map((low, i) => Math.round(low + (full[i] - low) * part))})`;
  });
}

function showScale(shades) {
  const scale = byId("scale");
  for (const busy of [0, 5, 10, 25, 50, 75, 100]) {
    let step = scale.querySelector(`[data-busy="${busy}"]`);
    if (!step) {
      step = make("i", { "data-busy": busy }, `${busy} %`);
      scale.append(step);
    }
    step.style.background = shades[busy];
    step.style.color = busy >= 25 ? "var(--card)" : "var(--ink)";
  }
}

function showMap(status) {
  byId("map-card").hidden = !status.procs;
  if (!status.procs) return;
  const workers = status.workers.length;
  const canvas = byId("map");
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const row = Math.max(3, Math.min(18, Math.floor(288 / workers)));
  const gap = row > 5 ? 1 : 0;
  canvas.style.height = `${row * workers}px`;
  canvas.width = width * scale;
  canvas.height = row * workers * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const shades = makeShades();
  showScale(shades);
  pen.fillStyle = shades[0];
  for (let worker = 0; worker < workers; worker += 1) {
    pen.fillRect(MARGIN.left, worker * row, width - MARGIN.left - MARGIN.right, row - gap);
  }
  const perSecond = (width - MARGIN.right - MARGIN.left) / kept;
  const newest = samples.length ? samples[samples.length - 1].monotonic_seconds : 0;
  for (const sample of samples) {
    const right = width - MARGIN.right - (newest - sample.monotonic_seconds) * perSecond;
    sample.workers.forEach((busy, worker) => {
      if (worker >= workers || right - perSecond < MARGIN.left) return;
      pen.fillStyle = shades[busy];
      pen.fillRect(right - perSecond - 0.5, worker * row, perSecond + 0.5, row - gap);
    });
  }
  pen.fillStyle = `rgb(${colour("--soft")})`;
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  const step = Math.ceil(13 / row);
  for (let worker = 0; worker < workers; worker += step) {
    pen.fillText(String(worker), MARGIN.left - 7, Math.max(6, worker * row + row / 2));
  }
  const sample = pointedAt();
  if (sample) {
    const at = sample.workers.filter((busy) => busy >= 50).length;
    put(byId("map-legend"), when(sample) + `${at} of ${workers} more than half busy`);
  }
}

// -- the shadow ---------------------------------------------------------------

let pointedWorker = null;

function shadowName(shadow) {
  return shadow.model ? `${shadow.policy} (model)` : shadow.policy;
}

function showShadow(status) {
  const shadow = status.shadow;
  byId("shadow-card").hidden = !shadow;
  if (!shadow) return;
  put(byId("shadow-name"), shadowName(shadow));
  const asked = (shadow.connections ?? 0) + (shadow.unanswered ?? 0);
  byId("shadow-counts").hidden = byId("shadow-note").hidden = !asked;
  byId("shadow-words").hidden = Boolean(asked);
  if (!asked) {
    put(byId("shadow-words"), "connections" in shadow
      ? "No connection has been dispatched yet."
      : `No data: under ${status.policy} the supervisor dispatches no connections.`);
    byId("shadow-legend").replaceChildren();
    return;
  }
  showAgreement(shadow, asked);
  showShadowFigures(status, shadow);
  showShares(status, shadow);
}

function showAgreement(shadow, asked) {
  const another = shadow.connections - shadow.agreed;
  const parts = [shadow.agreed, another, shadow.unanswered];
  parts.forEach((part, at) => {
    const bar = byId("agreement").children[at];
    bar.hidden = !part;
    bar.style.setProperty("--share", part / asked);
  });
  const words = `The same worker for ${share(shadow.agreed / asked)}, another for`
    + ` ${share(another / asked)} of ${count(asked)} connections`
    + (shadow.unanswered ? `; no answer for ${count(shadow.unanswered)}.` : ".");
  byId("agreement").setAttribute("aria-label", words);
  put(byId("agreement-words"), words);
}

function showShadowFigures(status, shadow) {
  const rows = [
    ["", status.policy, shadowName(shadow)],
    ["Balance", index(shadow.balance.dispatched), index(shadow.balance.shadow)],
    ["Tasks found", shadow.found.dispatched.toFixed(2), shadow.found.shadow.toFixed(2)],
    ["Time to choose", none, seconds(shadow.microseconds / 1e6)],
  ];
  const body = byId("shadow-figures").tBodies[0];
  rows.forEach((texts, at) => {
    if (!body.rows[at]) {
      const row = make("tr");
      const rest = at ? "td" : "th";
      row.append(make("th", { scope: "row" }), make(rest), make(rest));
      body.append(row);
    }
    texts.forEach((text, column) => put(body.rows[at].cells[column], text));
  });
}

// For each worker its connections, and beside them what the shadow would have given it.
function showShares(status, shadow) {
  const rows = shadow.workers;
  // While kvd ends, no worker may be left.
  if (!rows.length) return;
  const all = Math.max(1, shadow.connections);
  const most = roundUp(
    100 * Math.max(...rows.map((row) => Math.max(row.dispatched, row.shadow))) / all) / 100;
  const chart = frame(byId("shadow"));
  drawScale(chart, most, (part) => `${+(100 * part).toPrecision(2)} %`, 2);
  const each = (chart.right - MARGIN.left) / rows.length;
  const bar = Math.min(28, Math.max(1, each * 0.38));
  const room = Math.ceil(22 / each);
  rows.forEach((row, position) => {
    const middle = MARGIN.left + (position + 0.5) * each;
    if (position === pointedWorker) {
      chart.svg.append(draw("rect", { class: "here", x: middle - each / 2, width: each,
        y: MARGIN.top, height: chart.bottom - MARGIN.top }));
    }
    for (const [kind, got, x] of
      [["first", row.dispatched, middle - bar], ["second", row.shadow, middle]]) {
      const top = chart.y(got / all / most);
      chart.svg.append(draw("rect", { class: `bar ${kind}`, x, width: bar * 0.94, y: top,
        height: chart.bottom - top }));
    }
    if (position % room === 0) {
      chart.svg.append(draw("text", { x: middle, y: chart.bottom + 15,
        "text-anchor": "middle" }, row.worker));
    }
  });
  const even = chart.y(1 / rows.length / most);
  chart.svg.append(draw("line",
    { class: "limit", x1: MARGIN.left, x2: chart.right, y1: even, y2: even }));
  const row = rows[pointedWorker];
  byId("shadow-legend").replaceChildren(
    row ? `worker ${row.worker}` : "",
    make("i", { class: "first" }),
    row ? `${status.policy} ${count(row.dispatched)}` : `by ${status.policy}`,
    make("i", { class: "second" }),
    row ? `${shadowName(shadow)} ${count(row.shadow)}` : `by ${shadowName(shadow)}`);
}

// -- the workers --------------------------------------------------------------

const SILENT_SECONDS = 2;

// Key, heading, tooltip, kind of cell, text, and for a bar its length.
const COLUMNS = [
  ["worker", "Worker", "The number of the worker", "words", (w) => String(w.row.worker)],
  ["state", "State", "The state of the worker", "words state", (w) => w.row.state],
  ["busy", "Busy", "The share of the last second in which the worker did not wait", "bar",
    (w) => share(w.now?.busy), (w) => w.now?.busy],
  ["rate", "Requests / s", "Requests that ended in the last second", "bar",
    (w) => count(w.now?.requests_per_second),
    (w) => w.now?.requests_per_second / w.most],
  ["progress", "Now", "Requests in progress", "", (w) => count(w.row.in_progress)],
  ["open", "Open", "Open connections", "", (w) => count(w.row.open)],
  ["handing", "On the way", "Connections being handed over to the worker", "",
    (w) => count(w.row.handing_over)],
  ["queue", "Queue", "Connections that wait to be accepted at the worker's socket", "",
    (w) => count(w.row.accept_queue)],
  ["in", "In / s", "Bytes received in the last second", "",
    (w) => bytes(w.now?.bytes_in_per_second)],
  ["out", "Out / s", "Bytes sent in the last second", "",
    (w) => bytes(w.now?.bytes_out_per_second)],
  ["latency", "99 % below", "How long requests took in the last second", "",
    (w) => seconds(w.now?.latency_p99_seconds)],
  ["delay", "Loop delay", "An upper bound of the longest turn of the worker's reactor in the last second",
    "", (w) => seconds(w.now?.loop_delay_seconds)],
  ["requests", "Requests", "All requests that ended", "", (w) => count(w.row.requests)],
  ["pid", "Process", "The process id, and how many processes the worker had before", "",
    (w) => process(w.row)],
];

function process(row) {
  if (row.pid == null) return none;
  return row.starts > 1 ? `${row.pid} (+${row.starts - 1})` : String(row.pid);
}

// How the table is sorted: by which column, and in which direction.
let sortedBy = "worker";
let ascending = true;

// What a column is sorted by, if not by its bar.
const SORTED = {
  worker: (w) => w.row.worker, state: (w) => w.row.state,
  progress: (w) => w.row.in_progress, open: (w) => w.row.open,
  handing: (w) => w.row.handing_over, queue: (w) => w.row.accept_queue,
  in: (w) => w.now?.bytes_in_per_second, out: (w) => w.now?.bytes_out_per_second,
  latency: (w) => w.now?.latency_p99_seconds,
  delay: (w) => (w.row.silent_seconds > SILENT_SECONDS ? w.row.silent_seconds
    : w.now?.loop_delay_seconds),
  requests: (w) => w.row.requests, pid: (w) => w.row.pid,
  busy: (w) => w.now?.busy, rate: (w) => w.now?.requests_per_second,
};

function compare(one, other) {
  const [a, b] = [SORTED[sortedBy](one), SORTED[sortedBy](other)];
  // What is unknown comes last, whatever the direction.
  if (a == null || b == null) return (a == null) - (b == null);
  const order = typeof a === "string" ? a.localeCompare(b) : a - b;
  return (ascending ? order : -order) || one.row.worker - other.row.worker;
}

function sortBy(key) {
  // The largest numbers are looked for; a second click turns them round.
  ascending = sortedBy === key ? !ascending : key === "worker" || key === "state";
  sortedBy = key;
  showSorting();
  show();
}

function showSorting() {
  COLUMNS.forEach(([key], column) => {
    const head = byId("heads").children[column];
    const order = ascending ? "ascending" : "descending";
    head.setAttribute("aria-sort", key === sortedBy ? order : "none");
  });
}

function showHeads() {
  for (const [key, heading, meaning, kind] of COLUMNS) {
    const words = kind.startsWith("words") ? "words" : "";
    const head = make("th", { class: words, title: meaning, scope: "col" });
    const button = make("button", { type: "button" }, heading);
    button.addEventListener("click", () => sortBy(key));
    head.append(button);
    byId("heads").append(head);
  }
  showSorting();
}

// Some columns depend on the settings.
function isKnown(key, status) {
  // twistd's own reactor does not count its waiting.
  if (key === "busy" || key === "delay") return status.procs > 0;
  if (key === "queue") return status.workers.some((row) => "accept_queue" in row);
  return true;
}

function makeRow() {
  const row = make("tr");
  for (const [key, , , kind] of COLUMNS) {
    const cell = make("td", { "data-field": key, class: kind });
    if (key === "state") cell.append(make("i"));
    cell.append(make("span"));
    row.append(cell);
  }
  return row;
}

function showWorkers(status, now) {
  const body = byId("workers");
  while (body.children.length > status.workers.length) body.lastChild.remove();
  while (body.children.length < status.workers.length) {
    body.append(makeRow());
  }
  const known = COLUMNS.map(([key]) => isKnown(key, status));
  known.forEach((is, column) => { byId("heads").children[column].hidden = !is; });
  const rates = now?.workers ?? [];
  const most = Math.max(1, ...rates.map((rate) => rate.requests_per_second));
  const sorted = status.workers.map(
    (row) => ({ row, now: "requests" in row ? rates[row.worker] : null, most }));
  sorted.sort(compare).forEach((worker, position) => {
    const { row } = worker;
    body.children[position].dataset.worker = row.worker;
    const stuck = row.silent_seconds > SILENT_SECONDS;
    COLUMNS.forEach(([key, , , kind, text, length], column) => {
      const cell = body.children[position].children[column];
      cell.hidden = !known[column];
      if (cell.hidden) return;
      let words = text(worker);
      if (stuck && key === "delay") words = `silent ${seconds(row.silent_seconds)}`;
      put(cell.lastChild, words);
      const nothing = words === none || words === "0" || words === "0 B";
      cell.classList.toggle("nothing", nothing && key !== "worker");
      cell.classList.toggle("alarm", stuck && key === "delay");
      if (key === "state") cell.className = `${kind} ${row.state}`;
      if (length) cell.style.setProperty("--share", length(worker) || 0);
    });
  });
  const ready = status.workers.filter((row) => row.state === "ready").length;
  put(byId("workers-legend"), status.draining ? "draining"
    : `${ready} of ${status.workers.length} ready`);
  put(byId("queues"), status.accept_queues.map((queue) => {
    const waiting = add(queue.waiting, (n) => n);
    const sockets = queue.waiting.length;
    return `${waiting} connections wait to be accepted at ${queue.address}`
      + ` (${sockets} ${sockets === 1 ? "socket" : "sockets"}, room for`
      + ` ${queue.limit} at each)`;
  }).join("; "));
}

// -- the clock ----------------------------------------------------------------

let latest = null;

function remember(now) {
  const newest = samples.length ? samples[samples.length - 1].monotonic_seconds : 0;
  if (!now || now.monotonic_seconds <= newest) return;
  const workers = now.workers.map((worker) => Math.round(100 * worker.busy));
  samples.push({ ...now, workers });
  while (samples.length > kept) samples.shift();
}

function show() {
  if (!latest) return;
  const now = latest.last_second;
  showFacts(latest);
  showAlarm(latest);
  showTiles(latest, now);
  showDisk(latest);
  showEvents(latest);
  showWorkers(latest, now);
  showCharts();
}

function showCharts() {
  if (!latest) return;
  showErrors();
  showLatency();
  showThroughput();
  showBalance(latest.workers.length);
  showRate();
  showMap(latest);
  showShadow(latest);
}

async function ask(path) {
  const reply = await fetch(path, { signal: AbortSignal.timeout(5000) });
  if (!reply.ok) throw new Error(`${path}: ${reply.status}`);
  return reply.json();
}

async function look() {
  const status = await ask("/status.json");
  const newest = samples.length ? samples[samples.length - 1].monotonic_seconds : 0;
  const missed = status.last_second
    && status.last_second.monotonic_seconds - newest > GAP_SECONDS;
  const isNext = performance.now() - hourRead > stepSeconds * 1000;
  if (status.pid !== daemon || missed || isNext) {
    const past = await ask("/history.json");
    steps = past.steps;
    keptSteps = past.kept_steps;
    stepSeconds = past.step_seconds;
    hourRead = performance.now();
    samples.splice(0, samples.length, ...past.samples);
    kept = past.kept_samples;
    daemon = status.pid;
  }
  remember(status.last_second);
  latest = status;
  answered = Date.now();
  show();
  showLive("on", "live");
  document.body.dataset.live = samples.length;
}

async function watch() {
  if (!document.hidden) {
    try {
      await look();
    } catch (error) {
      const age = answered ? `, the numbers are ${duration((Date.now() - answered) / 1000)} old`
        : "";
      showLive("off", `no answer${age}: ${error.message}`);
    }
  }
  setTimeout(watch, POLL_MS);
}

for (const id of ["balance", "rate"]) {
  const svg = byId(id);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const perSecond = (box.width - MARGIN.left - MARGIN.right) / kept;
    const ago = (box.right - MARGIN.right - event.clientX) / perSecond;
    cursor = Math.max(0, Math.min(kept, ago));
    showCharts();
  });
  svg.addEventListener("pointerleave", () => {
    cursor = null;
    showCharts();
  });
}
for (const id of ["errors", "latency", "through"]) {
  const svg = byId(id);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const all = keptSteps * stepSeconds;
    const perSecond = (box.width - MARGIN.left - MARGIN.right) / all;
    const ago = (box.right - MARGIN.right - event.clientX) / perSecond;
    hourCursor = Math.max(0, Math.min(all, ago));
    showCharts();
  });
  svg.addEventListener("pointerleave", () => {
    hourCursor = null;
    showCharts();
  });
}
byId("shadow").addEventListener("pointermove", (event) => {
  const box = byId("shadow").getBoundingClientRect();
  const workers = latest.shadow.workers.length;
  const each = (box.width - MARGIN.left - MARGIN.right) / workers;
  const position = Math.floor((event.clientX - box.left - MARGIN.left) / each);
  pointedWorker = Math.max(0, Math.min(workers - 1, position));
  showShadow(latest);
});
byId("shadow").addEventListener("pointerleave", () => {
  pointedWorker = null;
  showShadow(latest);
});
window.addEventListener("resize", showCharts);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showCharts);
showHeads();
watch();
