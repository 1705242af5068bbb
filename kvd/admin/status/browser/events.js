// Warnings and errors of the log.

function showEvents(status) {
  const list = byId("events");
  const events = [...status.events].reverse();
  const key = events.length ? `${events.length} ${events[0].at}` : "none";
  put(byId("events-legend"), events.length ? `${events.length}, newest first` : "");
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...events.map((event) => {
    const item = make("li", { class: event.level });
    const date = new Date(event.at * 1000);
    item.append(
      make("time", { datetime: date.toISOString() }, date.toLocaleString()),
      make("b", { class: event.kind }, event.kind), make("span", {}, event.text));
    return item;
  }));
  if (!events.length) list.append(make("li", {}, "Nothing since the start."));
}
