// Worker utilisation, as a map over time.

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

// Black or white: on any shade, one of them has a contrast of 4.5 (WCAG 2.2, 1.4.3).
function legibleOn(shade) {
  const [red, green, blue] = shade.match(/\d+/g).map((level) => {
    const part = level / 255;
    return part > 0.04045 ? ((part + 0.055) / 1.055) ** 2.4 : part / 12.92;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
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
    step.style.color = legibleOn(shades[busy]);
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
