// What all charts over time have in common.

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

function rateLabel(value) {
  return short(value, 1000, ["", "k", "M"])
    .replace(/(\.\d*?)0+(\D?)$/, "$1$2").replace(/\.(\D?)$/, "$1");
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

// The next larger round number.
function roundUp(number) {
  const power = 10 ** Math.floor(Math.log10(Math.max(number, 1)));
  return [1, 2, 4, 5, 8, 10].map((n) => n * power).find((n) => n >= number);
}
