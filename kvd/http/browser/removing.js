// Deleting values: only what the page has shown, and not what has come since.

function showRemoval() {
  for (const button of document.querySelectorAll("#rows button")) button.hidden = false;
}

async function remove(button) {
  const row = button.closest("tr");
  const name = nameOf(row);
  if (!await ask(`Delete ${name}? This cannot be undone.`, "Delete", true)) return;
  let reply;
  try {
    reply = await fetch(new URL(linkOf(row), here), {
      method: "DELETE",
      headers: { "If-Match": `"${button.dataset.etag}"` },
    });
  } catch {
    return tell(`${name} could not be deleted: the connection broke.`);
  }
  if (reply.status === 412) {
    await readAgain();
    return tell(`${name} has changed meanwhile, and was not deleted.`);
  }
  if (!reply.ok && reply.status !== 404) {
    return tell(`${name} was not deleted. ${sentence(reply.status, await reply.text())}`);
  }
  const next = row.nextElementSibling ?? row.previousElementSibling;
  row.remove();
  (next?.querySelector("button:not([hidden])") ?? next?.querySelector("a") ?? found("search")).focus();
  await readAgain();
  say(`${name} was deleted.`);
}

// What went wrong is shown until somebody has seen it.
function tell(text) {
  say(text);
  found("ask-no").hidden = true;
  return ask(text, "Close", false).then(() => { found("ask-no").hidden = false; });
}

function watchRemoval() {
  found("rows").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) remove(button);
  });
}
