// The charts of the last minutes.

let cursor = null;

function drawTimes({ svg, width, right, bottom, perSecond }) {
  for (let ago = 0; ago <= kept; ago += width < 340 ? 120 : 60) {
    const at = right - ago * perSecond;
    const anchor = ago ? "middle" : "end";
    svg.append(draw("text", { x: at, y: bottom + 15, "text-anchor": anchor },
      ago ? `${ago / 60} min ago` : "now"));
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
