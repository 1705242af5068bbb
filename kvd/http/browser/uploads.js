// Uploads: which files, a few at once, and what is shown of them.

const AT_ONCE = 3;
const waiting = [];
const total = { files: 0, done: 0, bytes: 0, doneBytes: 0 };
const active = new Set();

function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let unit = -1;
  do { bytes /= 1024; unit++; } while (bytes >= 1000 && unit < 3);
  return `${bytes.toFixed(bytes < 99.95 ? 1 : 0)} ${units[unit]}`;
}

function showSum() {
  let moved = total.doneBytes;
  for (const job of active) moved += job.bytes;
  const share = total.bytes ? moved / total.bytes : total.done / (total.files || 1);
  found("uploads-progress").value = share;
  const files = `${total.done} of ${total.files} file${total.files === 1 ? "" : "s"}`;
  found("uploads-sum").textContent = `${files}, ${size(moved)} of ${size(total.bytes)}`;
}

class Job {
  constructor(file, path) {
    this.file = file;
    this.path = path;
    this.bytes = 0;
    this.replaces = false;
    this.upload = null;
    this.isWhole = false;
    this.isCancelled = false;
  }

  get name() {
    return this.path.join("/");
  }

  // What is shown of it, with buttons.
  show(text, buttons, isFailure = false) {
    this.row ??= element("li", "");
    const focused = this.row.contains(document.activeElement);
    this.row.classList.toggle("failed", isFailure);
    this.note = element("span", text);
    const made = buttons.map(([label, act]) => {
      const button = element("button", label, { type: "button", "aria-label": `${label}: ${this.name}` });
      button.addEventListener("click", act);
      return button;
    });
    this.row.replaceChildren(element("b", this.name), this.note, ...made);
    found("jobs").append(this.row);
    if (focused) (made[0] ?? found("choose")).focus();
  }

  moved(bytes) {
    this.bytes = Math.min(bytes, this.file.size);
    this.note.textContent = `${size(this.bytes)} of ${size(this.file.size)}`;
    showSum();
  }

  waits() {
    this.note.textContent = "The connection broke; trying again";
  }

  cancel() {
    this.isCancelled = true;
    this.request?.abort();
  }

  async run() {
    this.isCancelled = false;
    this.show("", [["Cancel", () => this.cancel()]]);
    this.moved(0);
    const outcome = await send(this);
    if (outcome === "done") {
      total.done++;
      total.doneBytes += this.file.size;
      this.leave();
      return;
    }
    this.bytes = 0;
    if (outcome === "exists") {
      const buttons = [["Skip", () => this.drop()]];
      if (!writesOnce) buttons.unshift(["Replace", () => { this.replaces = true; again(this); }]);
      this.show("A value of this name is here already.", buttons, true);
      say(`${this.name} is here already.`);
    } else {
      this.show(outcome, [["Try again", () => again(this)], ["Skip", () => this.drop()]], true);
      say(`${this.name} was not uploaded. ${outcome}`);
    }
  }

  leave() {
    if (this.row.contains(document.activeElement)) {
      (this.row.nextElementSibling?.querySelector("button") ?? found("choose")).focus();
    }
    this.row.remove();
  }

  drop() {
    total.files--;
    total.bytes -= this.file.size;
    this.leave();
    settle();
  }
}

function again(job) {
  waiting.push(job);
  go();
}

function go() {
  while (active.size < AT_ONCE && waiting.length) {
    const job = waiting.shift();
    active.add(job);
    job.run().finally(() => {
      active.delete(job);
      go();
      settle();
    });
  }
}

function settle() {
  showSum();
  if (active.size || waiting.length) return;
  if (total.done) {
    say(`${total.done} of ${total.files} file${total.files === 1 ? " is" : "s are"} uploaded.`);
    readAgain();
  }
  if (!found("jobs").childElementCount) {
    found("uploads").hidden = true;
    Object.assign(total, { files: 0, done: 0, bytes: 0, doneBytes: 0 });
  }
}

function upload(file, path) {
  total.files++;
  total.bytes += file.size;
  found("uploads").hidden = false;
  waiting.push(new Job(file, path));
}

function begin() {
  const count = waiting.length;
  if (!count) return;
  say(`Uploading ${count} file${count === 1 ? "" : "s"}.`);
  go();
  showSum();
}

// What was dropped may be folders; the browser gives their files piece by piece.
async function walk(entry, path) {
  const inner = [...path, entry.name];
  if (entry.isFile) {
    upload(await new Promise((resolve, reject) => { entry.file(resolve, reject); }), inner);
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
    if (!some.length) return;
    for (const each of some) await walk(each, inner);
  }
}

async function take(transfer) {
  // They are gone after this turn.
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  for (const entry of entries) {
    if (entry === null) continue;
    try {
      if (entry instanceof File) upload(entry, [entry.name]);
      else await walk(entry, []);
    } catch {
      tell(`${entry.name} cannot be read.`);
    }
  }
  begin();
}

function watchUploads() {
  found("choose").hidden = found("hint").hidden = false;
  found("choose").addEventListener("click", () => found("files").click());
  found("files").addEventListener("change", () => {
    for (const file of found("files").files) upload(file, [file.name]);
    found("files").value = "";
    begin();
  });
  const brings = (event) => event.dataTransfer.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!brings(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    found("drop").hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) found("drop").hidden = true;
  });
  addEventListener("drop", (event) => {
    found("drop").hidden = true;
    if (!brings(event)) return;
    event.preventDefault();
    take(event.dataTransfer);
  });
  addEventListener("beforeunload", (event) => {
    if (active.size || waiting.length) event.preventDefault();
  });
}
