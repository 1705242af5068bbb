// One upload, until the server has the value or refuses it. A large file is sent as an upload
// that can be resumed, where the server knows such (draft-ietf-httpbis-resumable-upload): what
// has come before a break is not sent again.

const RESUMED_BYTES = 4 * 1024 * 1024;
const LOOKED_AT_BYTES = 1024 * 1024;
const MOST_TRIES = 6;
const PAUSES_MS = [500, 1000, 2000, 4000, 8000];

const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

function addressOf(path) {
  // Each part is encoded, and cannot be read as a scheme behind the dot.
  return new URL(`./${path.map((part) => encodeURIComponent(part.toWellFormed?.() ?? part)).join("/")}`, here);
}

// The reply to a request; its status is 0 if there was none.
function request(job, method, url, fields, body, sent = 0) {
  return new Promise((resolve) => {
    const asked = new XMLHttpRequest();
    job.request = asked;
    asked.open(method, url);
    for (const [name, value] of Object.entries(fields)) {
      if (value) asked.setRequestHeader(name, value);
    }
    asked.upload.onprogress = (event) => job.moved(sent + event.loaded);
    asked.onload = () => resolve({
      status: asked.status,
      body: asked.responseText,
      field: (name) => asked.getResponseHeader(name),
    });
    asked.onerror = asked.onabort = () => resolve({ status: 0, body: "" });
    asked.send(body);
  });
}

const is = (reply, ...statuses) => statuses.includes(reply.status);
const isDone = (reply) => reply.status >= 200 && reply.status < 300;

// Without a charset, browsers take text for windows-1252. Most is UTF-8, and what cannot
// be, or of which the part looked at does not tell, keeps the type that it came with.
async function typeOf(file) {
  if (!file.type.startsWith("text/")) return file.type;
  try {
    const bytes = await file.slice(0, LOOKED_AT_BYTES).arrayBuffer();
    const isWhole = bytes.byteLength === file.size;
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: !isWhole });
    const tells = isWhole || text.length < bytes.byteLength;
    return tells && !text.includes("\0") ? `${file.type}; charset=utf-8` : file.type;
  } catch {
    return file.type;
  }
}

function fieldsOf(job) {
  return { "Content-Type": job.type, "If-None-Match": job.replaces ? "" : "*" };
}

async function sendWhole(job) {
  const reply = await request(job, "PUT", addressOf(job.path), fieldsOf(job), job.file);
  // An earlier try may have stored it, and its reply been lost.
  const isOwn = is(reply, 412) && job.tries > 1 && await hasArrived(job);
  return isOwn ? { status: 204 } : reply;
}

async function hasArrived(job) {
  try {
    const reply = await fetch(addressOf(job.path), { method: "HEAD", cache: "no-store" });
    const size = Number(reply.headers.get("Content-Length"));
    const [changed, now] = ["Last-Modified", "Date"].map((name) => Date.parse(reply.headers.get(name)));
    // The clocks here and there may differ.
    const began = now - (Date.now() - job.began) - 2000;
    return reply.ok && size === job.file.size && changed >= began;
  } catch {
    return false;
  }
}

// Returns the refusal, if it cannot begin.
async function beginUpload(job) {
  const url = addressOf(job.path);
  const fields = { ...fieldsOf(job), "Upload-Complete": "?0", "Upload-Length": String(job.file.size) };
  const reply = await request(job, "PUT", url, fields, null);
  const place = reply.status === 201 && reply.field("Location");
  if (place) {
    // The path may be another one before a proxy.
    url.search = new URL(place, here).search;
    job.upload = url;
    return null;
  }
  if (!is(reply, 501, 503)) return reply;
  job.isWhole = true;
  return null;
}

async function sendRest(job) {
  const state = await request(job, "HEAD", job.upload, {}, null);
  if (is(state, 404)) job.upload = null; // It was kept for too long.
  if (!isDone(state)) return { ...state, status: 0 };
  if (state.field("Upload-Complete") === "?1") return state;
  const offset = Number(state.field("Upload-Offset"));
  // As long as some of it arrives, it goes on.
  if (offset > job.arrived) job.tries = 1;
  job.arrived = offset;
  job.moved(offset);
  const reply = await request(job, "PATCH", job.upload, {
    "Content-Type": "application/partial-upload",
    "Upload-Offset": String(offset),
    "Upload-Complete": "?1",
  }, job.file.slice(offset), offset);
  // Another offset, or one that is gone: see what there is.
  return is(reply, 404, 409) ? { ...reply, status: 0 } : reply;
}

async function sendOnce(job) {
  if (job.file.size >= RESUMED_BYTES && !job.upload && !job.isWhole) {
    const refusal = await beginUpload(job);
    if (refusal !== null) return refusal;
  }
  return job.upload ? sendRest(job) : sendWhole(job);
}

// Returns "done", "exists", or a sentence about what is wrong.
async function send(job) {
  job.began = Date.now();
  job.arrived = 0;
  job.type = await typeOf(job.file);
  for (job.tries = 1; ; job.tries++) {
    const reply = await sendOnce(job);
    if (isDone(reply)) return "done";
    if (job.isCancelled) return forget(job);
    const mayPass = is(reply, 0, 408, 429, 503);
    if (!mayPass) job.upload = null;
    if (is(reply, 412)) return "exists";
    if (!mayPass || job.tries === MOST_TRIES) return sentence(reply.status, reply.body);
    job.waits();
    await pause(PAUSES_MS[job.tries - 1]);
    if (job.isCancelled) return forget(job);
  }
}

function forget(job) {
  if (job.upload) fetch(job.upload, { method: "DELETE" }).catch(() => {});
  job.upload = null;
  return "It was cancelled.";
}
