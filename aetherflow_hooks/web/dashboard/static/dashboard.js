// Keeps numbers fresh and shows attempts as they are recorded. Every page works without it.
// What comes from outside is put into the page as text, never as markup.

const ROWS_MAX = 50;

// Parts that go out of date are taken from the page anew. Nobody who looks elsewhere is asked for,
// and nothing is taken away from under the hands of somebody who is in it.
for (const seconds of new Set([...document.querySelectorAll("[data-refresh]")].map((it) => it.dataset.refresh))) {
  setInterval(() => refresh(seconds), seconds * 1000);
}

async function refresh(seconds) {
  if (document.hidden) return;
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!answer) return;
  if (answer.redirected || !answer.ok) return answer.redirected ? location.reload() : undefined;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll(`[data-refresh="${seconds}"]`)) {
    const other = fresh.getElementById(part.id);
    const isInUse = part.contains(document.activeElement) || part.matches(":hover") && part.querySelector("details[open]");
    if (other && !isInUse && other.innerHTML !== part.innerHTML) part.replaceChildren(...other.childNodes);
  }
}

for (const table of document.querySelectorAll("[data-live]")) follow(table);

function follow(table) {
  const template = document.getElementById("attempt-row");
  const body = table.tBodies[0];
  const known = new Set([...body.rows].map((row) => row.dataset.id));
  const shown = table.querySelector(".live");
  const button = shown.querySelector("button");
  let isPaused = false;
  shown.hidden = false;
  button.addEventListener("click", () => {
    isPaused = !isPaused;
    button.setAttribute("aria-pressed", isPaused);
  });
  const source = new EventSource(table.dataset.live);
  addEventListener("pagehide", () => source.close());
  source.addEventListener("attempt", (event) => {
    const attempt = JSON.parse(event.data);
    if (isPaused || document.hidden || known.has(attempt.id)) return;
    known.add(attempt.id);
    body.querySelector(".none")?.remove();
    body.prepend(row(template, attempt));
    while (body.rows.length > ROWS_MAX) {
      known.delete(body.lastElementChild.dataset.id);
      body.lastElementChild.remove();
    }
  });
}

function row(template, attempt) {
  const made = template.content.cloneNode(true).firstElementChild;
  made.dataset.id = attempt.id;
  made.className = "new";
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
  return text.replace(/[\p{C}\u2028\u2029]/gu, (it) => {
    const code = it.codePointAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : code < 65536 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
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

for (const button of document.querySelectorAll("[data-back]")) {
  button.hidden = history.length < 2;
  button.addEventListener("click", () => history.back());
}

for (const select of document.querySelectorAll("[data-submit]")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}
