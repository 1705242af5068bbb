// The charts of the last hour.

let hourCursor = null;

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

function showErrors() {
  const of = (kind) => (step) => inClass(step.statuses_per_second, kind);
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
