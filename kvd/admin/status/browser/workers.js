// The table of workers.

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
    const heads = key === "worker" ? { scope: "row" } : {};
    const cell = make(heads.scope ? "th" : "td", { "data-field": key, class: kind, ...heads });
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
