// Reads the numbers each second, and shows them.

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

window.addEventListener("resize", showCharts);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showCharts);
showHeads();
watch();
