// The head of the page, and what is wrong now.

function showFacts(status) {
  const facts = {
    policy: policyInForce(status),
    shadow: status.shadow ? shadowName(status.shadow) : "none",
    processes: status.procs || "0, twistd serves",
    store: status.store,
    durability: status.durability,
    at: status.addresses.join(", "),
    up: duration(status.uptime_seconds),
    process: status.pid,
  };
  const list = byId("facts");
  for (const [name, value] of Object.entries(facts)) {
    let fact = list.querySelector(`[data-fact="${name}"]`);
    if (!fact) {
      fact = make("div", { "data-fact": name });
      fact.append(make("dt", {}, name), make("dd"));
      list.append(fact);
    }
    put(fact.lastChild, String(value));
  }
  put(byId("version"), status.version);
}

// The policy, and its fallbacks at addresses where the kernel does not run its program.
function policyInForce(status) {
  const others = new Set(status.fallbacks.map((fallback) => fallback.by));
  return [others.size ? `not ${status.policy}` : status.policy, ...others].join(" but ");
}

// In a tab: "!" if something is wrong, "?" if nobody answers.
function showTitle(mark) {
  const status = latest;
  document.title = status === null ? "kvd"
    : `${mark}kvd: ${status.policy}, ${status.workers.length} workers`;
}

function showLive(kind, words) {
  byId("live").className = `live ${kind}`;
  put(byId("live").lastChild, words);
  document.body.classList.toggle("stale", kind === "off" && latest !== null);
  if (kind === "off") showTitle("? ");
}

// What is wrong now, if anything: above all numbers.
function showAlarm(status) {
  const alarm = byId("alarm");
  const wrong = status.ready === false ? [`Not ready: ${status.readiness}`] : [];
  for (const state of ["stalled", "waiting"]) {
    const numbers = status.workers.filter((row) => row.state === state).map((row) => row.worker);
    if (numbers.length === 1) wrong.push(`Worker ${numbers[0]} is ${state}.`);
    if (numbers.length > 1) wrong.push(`Workers ${numbers.join(", ")} are ${state}.`);
  }
  for (const { process, state } of status.processes)
    if (state === "stalled" || state === "waiting") wrong.push(`The ${process} is ${state}.`);
  alarm.hidden = !wrong.length;
  showTitle(wrong.length ? "! " : "");
  put(alarm, wrong.join(" "));
}
