// Keeps a page fresh and shows attempts as they are recorded. Every page works without it.
// What comes from outside is put into the page as text, never as markup.

const ROWS_MAX = 50;
const PAUSE_MAX_MS = 30_000;

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const parts = [...document.querySelectorAll("[data-refresh]")];
const table = document.querySelector("[data-live]");
let shownAt = new Date();

if (parts.length) keepFresh(Math.min(...parts.map((part) => part.dataset.refresh)) * 1000);
if (table) follow();

// Parts that go out of date are taken from the page anew, one look after the other. While nobody
// looks at the page, nothing is asked for.
async function keepFresh(pauseMs) {
  for (;;) {
    await sleep(pauseMs);
    if (!document.hidden) await refresh();
  }
}

async function refresh() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (answer?.redirected) return location.reload(); // the session is over
  document.getElementById("away").hidden = Boolean(answer?.ok);
  document.getElementById("away-since").textContent = shownAt.toTimeString().slice(0, 8);
  if (!answer?.ok) return;
  shownAt = new Date();
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of parts) replace(part, fresh.getElementById(part.id));
  if (table) catchUp(fresh.querySelector("[data-live]"));
}

// Nothing is taken away from under the hands of somebody who is in it, and what was opened stays so.
function replace(part, other) {
  const active = document.activeElement;
  if (!other || (part !== active && part.contains(active)) || closed(part) === closed(other)) return;
  const opened = [...part.querySelectorAll("details")].map((it) => it.open);
  part.replaceChildren(...other.childNodes);
  part.querySelectorAll("details").forEach((it, place) => (it.open = opened[place] ?? false));
}

function closed(part) {
  const copy = part.cloneNode(true);
  for (const it of copy.querySelectorAll("details[open]")) it.open = false;
  return copy.innerHTML;
}

// While nobody looks, nobody listens: a browser has few connections to one server. What came
// meanwhile is taken from the page.
async function follow() {
  const box = table.querySelector(".live");
  const button = box.querySelector("button");
  let source = null;
  let pauseMs = 1000;
  box.hidden = false;
  const isWanted = () => !document.hidden && button.getAttribute("aria-pressed") === "false";
  const open = () => {
    if (source || !isWanted()) return;
    source = new EventSource(table.dataset.live);
    source.addEventListener("open", () => (pauseMs = 1000));
    source.addEventListener("attempt", (event) => add(row(JSON.parse(event.data))));
    source.addEventListener("error", async () => {
      if (source?.readyState !== EventSource.CLOSED) return; // it tries again by itself
      close();
      await sleep(pauseMs);
      pauseMs = Math.min(pauseMs * 2, PAUSE_MAX_MS);
      open();
    });
  };
  const close = () => {
    source?.close();
    source = null;
  };
  const change = async () => {
    if (!isWanted()) return close();
    await refresh();
    open();
  };
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") === "false");
    change();
  });
  document.addEventListener("visibilitychange", change);
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  open();
}

function catchUp(other) {
  if (table.querySelector("button").getAttribute("aria-pressed") === "true" || !other) return;
  for (const it of [...other.tBodies[0].rows].reverse()) if (it.dataset.id) add(it);
}

function add(made) {
  const body = table.tBodies[0];
  if ([...body.rows].some((it) => it.dataset.id === made.dataset.id)) return;
  body.querySelector(".none")?.remove();
  made.className = "new";
  body.prepend(made);
  while (body.rows.length > ROWS_MAX) body.lastElementChild.remove();
}

function row(attempt) {
  const made = document.getElementById("attempt-row").content.cloneNode(true).firstElementChild;
  made.dataset.id = attempt.id;
  for (const cell of made.querySelectorAll("[data-field]")) {
    const name = cell.dataset.field;
    const value = attempt[name];
    if (cell.dataset.href) cell.href = cell.dataset.href + encodeURIComponent(value);
    if (name === "verdict") cell.classList.add(value);
    if (name === "started_at") cell.dateTime = value;
    if (name !== "delivery_id") cell.textContent = told(name, value);
  }
  return made;
}

function told(name, value) {
  if (value === null) return name === "type" ? "-" : "";
  if (name === "started_at") return value.slice(0, 19).replace("T", " ");
  if (name === "duration_ms") return `${value.toLocaleString("en-US")} ms`;
  return visible(String(value));
}

// As on the server: what shows nothing, or moves other characters, is written as an escape.
function visible(text) {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (it) => {
    const code = it.codePointAt(0);
    const [letter, digits] = code < 256 ? ["x", 2] : code < 65536 ? ["u", 4] : ["U", 8];
    return `\\${letter}${code.toString(16).padStart(digits, "0")}`;
  });
}

for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });
}
