// What the shadow would have done.

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
      // The corner heads nothing.
      const first = at ? make("th", { scope: "row" }) : make("td");
      const rest = () => (at ? make("td") : make("th", { scope: "col" }));
      row.append(first, rest(), rest());
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
