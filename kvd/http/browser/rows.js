// The entries: their dates in local time, search, order, and how they are read again.

const rowsOf = () => [...found("rows").rows];
const nameOf = (row) => row.querySelector("a").textContent;
const linkOf = (row) => row.querySelector("a").getAttribute("href");

const order = { by: null, isReverse: false };
const keys = {
  name: (row) => nameOf(row),
  size: (row) => Number(row.querySelector("[data-size]")?.dataset.size ?? -1),
  changed: (row) => row.querySelector("time")?.dateTime ?? "",
};
const collator = new Intl.Collator(undefined, { numeric: true });

function two(number) {
  return String(number).padStart(2, "0");
}

function localise() {
  for (const time of document.querySelectorAll("#rows time")) {
    const at = new Date(time.dateTime);
    if (isNaN(at)) continue;
    const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
    const clock = `${two(at.getHours())}:${two(at.getMinutes())}`;
    time.replaceChildren(element("span", day), " ", element("span", clock));
    time.title = at.toString();
  }
  found("zone").hidden = true;
}

function sort() {
  if (order.by === null) return;
  const key = keys[order.by];
  const sorted = rowsOf().sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    const folders = other.classList.contains("folder") - one.classList.contains("folder");
    const compared = typeof a === "number" ? a - b : collator.compare(a, b);
    return folders || (order.isReverse ? -compared : compared);
  });
  found("rows").append(...sorted);
}

function makeSortable() {
  for (const head of document.querySelectorAll("th[data-by]")) {
    const button = element("button", "", { type: "button" });
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const { by } = head.dataset;
      const wasSorted = order.by === by;
      order.isReverse = wasSorted ? !order.isReverse : by !== "name";
      order.by = by;
      for (const other of document.querySelectorAll("[aria-sort]")) {
        other.removeAttribute("aria-sort");
      }
      head.setAttribute("aria-sort", order.isReverse ? "descending" : "ascending");
      sort();
    });
  }
}

function search(isLoud) {
  const wanted = found("search").value.trim().toLowerCase();
  let shown = 0;
  const rows = rowsOf();
  for (const row of rows) {
    row.hidden = !nameOf(row).toLowerCase().includes(wanted);
    shown += !row.hidden;
  }
  found("none").hidden = shown > 0 || !rows.length;
  if (isLoud) say(`${shown} of ${rows.length} entries match.`);
}

function showRows() {
  localise();
  sort();
  search(false);
  showRemoval();
}

// The page as the server gives it now; what has the focus keeps it.
let isStale = false;
let reading = null;

function readAgain() {
  isStale = true;
  reading ??= readWhileStale().finally(() => { reading = null; });
  return reading;
}

async function readWhileStale() {
  while (isStale) {
    isStale = false;
    const reply = await fetch(address, { headers: { Accept: "text/html" } });
    if (!reply.ok) return;
    const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
    const focused = document.activeElement.closest("#rows tr");
    const isButton = document.activeElement.matches("button");
    const link = focused && linkOf(focused);
    for (const id of ["rows", "summary", "pages"]) {
      found(id).replaceChildren(...document.adoptNode(fresh.getElementById(id)).childNodes);
    }
    showRows();
    const row = link && rowsOf().find((each) => linkOf(each) === link);
    row?.querySelector(isButton ? "button" : "a")?.focus();
  }
}
