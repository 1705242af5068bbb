// The disk.

// Title, what is used, what there is, words, and whether it is meant to be full: what evicts is.
function diskBars(status) {
  const bars = [];
  const disk = status.disk;
  if (disk?.bytes) {
    bars.push(["File system", disk.bytes - disk.free_bytes, disk.bytes,
      `${bytes(disk.free_bytes)} of ${bytes(disk.bytes)} free`, false]);
  }
  if (disk?.inodes) {
    bars.push(["Inodes", disk.inodes - disk.free_inodes, disk.inodes,
      `${count(disk.free_inodes)} of ${count(disk.inodes)} free`, false]);
  }
  for (const quota of [...status.usage, ...(status.near ? [status.near] : [])]) {
    const where = quota === status.near ? "Near cache" : `Below ${quota.prefix}`;
    const removed = quota.evicted ? `, ${count(quota.evicted)} evicted` : "";
    bars.push([where, quota.taken, quota.limit,
      bytes(quota.taken) + (quota.limit == null ? "" : ` of at most ${bytes(quota.limit)}`)
      + `, ${count(quota.values)} values${removed}`, quota.evicts]);
  }
  return bars;
}

function showDisk(status) {
  const bars = diskBars(status);
  byId("disk-card").hidden = !bars.length && !status.disk;
  put(byId("disk-legend"), status.disk?.complaint || status.store);
  byId("disk-legend").classList.toggle("alarm", Boolean(status.disk?.complaint));
  const list = byId("disk");
  while (list.children.length > bars.length) list.lastChild.remove();
  bars.forEach(([title, used, all, words, evicts], position) => {
    if (!list.children[position]) {
      const one = make("div");
      const meter = make("div", { class: "meter" });
      meter.append(make("i"));
      one.append(make("h3"), meter, make("p"));
      list.append(one);
    }
    const [heading, meter, note] = list.children[position].children;
    const part = all ? used / all : 0;
    put(heading, title);
    put(note, words + (all ? ` (${share(part)} used)` : ""));
    meter.hidden = !all;
    meter.firstChild.style.setProperty("--share", Math.min(1, part));
    meter.classList.toggle("near-full", part >= 0.85 && !evicts);
    meter.classList.toggle("full", part >= 0.95 && !evicts);
  });
}
