"use strict";

// What the parts share: the elements of the page, its voice, and its question.

const found = (id) => document.getElementById(id);
const main = document.querySelector("main");
const mayWrite = main.dataset.write === "yes";
const writesOnce = main.dataset.once === "yes";

// The address of this page, without a user and a password, which no request may have; and
// of the folder.
const address = Object.assign(new URL(location.href), { username: "", password: "", hash: "" });
const here = new URL(".", address);

function say(text) {
  // The same text again is read again.
  found("said").textContent = "";
  setTimeout(() => { found("said").textContent = text; }, 50);
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

let asked = Promise.resolve();

function ask(text, yes, isBad) {
  // A dialog says that it has closed only afterwards: the next question waits for that, or it
  // would take the answer to this one.
  asked = asked.then(() => question(text, yes, isBad));
  return asked;
}

function question(text, yes, isBad) {
  const dialog = found("ask");
  const focused = document.activeElement;
  found("ask-text").textContent = text;
  found("ask-yes").textContent = yes;
  found("ask-yes").classList.toggle("bad", isBad);
  dialog.returnValue = "no";
  dialog.showModal();
  found("ask-no").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      focused?.focus();
      resolve(dialog.returnValue === "yes");
    }, { once: true });
  });
}

// What kvd says is wrong.
function sentence(status, body) {
  try {
    const { detail } = JSON.parse(body);
    if (typeof detail === "string") return detail;
  } catch { /* Another server has answered. */ }
  return status ? `The server answered ${status}.` : "The connection broke.";
}
