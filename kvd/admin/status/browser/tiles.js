// The tiles.

// Jain's index times n: how many evenly loaded workers n workers correspond to.
function effectiveWorkers(balance, workers) {
  if (balance == null) return "no requests";
  if (workers < 2) return "one worker";
  return `equals ${(balance * workers).toFixed(1)} of ${workers} workers`;
}

// Of statuses, those of a kind: of 4xx also 501, which is a client's doing too; of 5xx
// also 507.
function inClass(statuses, kind) {
  const other = { "4xx": "501", "5xx": "507" }[kind];
  return statuses[kind] + statuses[other];
}

// What there was in the steps of the last hour.
function inTheHour(kind) {
  return Math.round(add(steps, (step) => inClass(step.statuses_per_second, kind) * stepSeconds));
}

function errors(status, now, kind) {
  const rate = now ? inClass(now.statuses_per_second, kind) : null;
  return [count(rate),
    `${count(inTheHour(kind))} in the last hour, ${count(inClass(status.totals.statuses, kind))}`
      + " in all",
    rate > 0];
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
      tile.append(make("h2", {}, title), make("b"), make("p"));
      list.append(tile);
    }
    put(tile.children[1], value);
    put(tile.children[2], note);
    tile.classList.toggle("alarm", Boolean(alarm));
  }
}
