// Shows new requests without a reload: a thin stream says that there is something new, and the parts
// that show it are fetched again. Without room for a stream, they are fetched every few seconds.
"use strict";

(() => {
  const parts = [...document.querySelectorAll("[data-live]")];
  const state = document.querySelector("[data-live-state]");
  const turns = new WeakMap();

  async function refresh(part) {
    const turn = (turns.get(part) ?? 0) + 1;
    turns.set(part, turn);
    const answer = await fetch(part.dataset.live, { headers: { "hx-request": "true" } });
    if (answer.status === 401) { location.reload(); return; }
    if (!answer.ok) return;
    const html = await answer.text();
    if (turns.get(part) !== turn) return;  // a later answer has come before
    const target = part.dataset.into ? document.querySelector(part.dataset.into) : part;
    if (!target) { location.reload(); return; }
    const scroller = target.querySelector(".scroll");
    const left = scroller ? scroller.scrollLeft : 0;
    if (target.contains(document.activeElement) && document.activeElement.closest("tr, form")) return;
    target.innerHTML = html;
    if (left) target.querySelector(".scroll").scrollLeft = left;
    if (window.htmx) window.htmx.process(target);
    window.relayPage.localise(target);
  }

  const quietly = (part) => refresh(part).catch(() => {});
  const all = () => parts.forEach(quietly);
  const minutely = parts.filter((part) => "minutely" in part.dataset);
  setInterval(() => { if (!document.hidden) minutely.forEach(quietly); }, 60000);

  let polling = 0;
  function poll() {
    if (!polling) polling = setInterval(() => { if (!document.hidden) all(); }, 5000);
  }

  let stream = null;
  function listen() {
    stream = new EventSource(`/dashboard/live?since=${state ? state.dataset.since : ""}`);
    stream.addEventListener("open", () => { if (state) state.hidden = false; });
    stream.addEventListener("new", all);
    stream.addEventListener("over", () => { stream.close(); location.reload(); });
    stream.addEventListener("error", () => {
      if (state) state.hidden = true;
      if (stream.readyState === EventSource.CLOSED) poll();  // refused: no room, or no session
    });
  }
  if (document.querySelector("#rows, [data-live]")) listen();
  addEventListener("pagehide", () => stream && stream.close());
  addEventListener("pageshow", (event) => { if (event.persisted) { listen(); all(); } });
})();
