// One upload: PUT, again after a break, until the server has the value or refuses it.

const MOST_TRIES = 6;
const PAUSES_MS = [500, 1000, 2000, 4000, 8000];

const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

function addressOf(path) {
  // Each part is encoded, and cannot be read as a scheme behind the dot.
  return new URL(`./${path.map((part) => encodeURIComponent(part.toWellFormed?.() ?? part)).join("/")}`, here);
}

function put(job) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    job.request = request;
    request.open("PUT", addressOf(job.path));
    if (!job.replaces) request.setRequestHeader("If-None-Match", "*");
    request.upload.onprogress = (event) => job.moved(event.loaded);
    request.onload = () => resolve({ status: request.status, body: request.responseText });
    request.onerror = request.onabort = () => resolve({ status: 0, body: "" });
    request.send(job.file);
  });
}

// Whether a value is the one that was sent, whose reply was lost.
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

// Returns "done", "exists", or a sentence about what is wrong.
async function send(job) {
  job.began = Date.now();
  for (let tries = 1; ; tries++) {
    const { status, body } = await put(job);
    if (status >= 200 && status < 300) return "done";
    if (job.isCancelled) return "It was cancelled.";
    if (status === 412) return tries > 1 && await hasArrived(job) ? "done" : "exists";
    const mayPass = status === 0 || status === 408 || status === 429 || status === 503;
    if (!mayPass || tries === MOST_TRIES) return sentence(status, body);
    job.moved(0);
    job.waits();
    await pause(PAUSES_MS[tries - 1]);
    if (job.isCancelled) return "It was cancelled.";
  }
}
