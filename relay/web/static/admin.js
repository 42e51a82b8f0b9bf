// Parts of the administrators' pages that change by themselves: fetched again every few seconds
// while the page is seen, and left alone while somebody uses them.
"use strict";

(() => {
  const turns = new WeakMap();

  function isInUse(part) {
    const focused = document.activeElement;
    return part.querySelector("details[open]") || (part.contains(focused) && focused.closest("form, tr"));
  }

  async function refresh(part) {
    if (document.hidden || isInUse(part)) return;
    const turn = (turns.get(part) ?? 0) + 1;
    turns.set(part, turn);
    const answer = await fetch(part.dataset.from, { headers: { "hx-request": "true" } });
    if (answer.status === 401 || answer.status === 404) { location.reload(); return; }
    if (!answer.ok) return;
    const html = await answer.text();
    if (turns.get(part) !== turn || isInUse(part)) return;
    const scrolled = [...part.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
    part.innerHTML = html;
    part.querySelectorAll(".scroll").forEach((one, index) => { one.scrollLeft = scrolled[index] ?? 0; });
    window.relayPage.localise(part);
  }

  // A file that is dropped on a field becomes its text.
  for (const field of document.querySelectorAll("[data-drop]")) {
    field.addEventListener("dragover", (event) => event.preventDefault());
    field.addEventListener("drop", async (event) => {
      const file = event.dataTransfer.files[0];
      if (!file) return;
      event.preventDefault();
      field.value = await file.text();
    });
  }

  for (const part of document.querySelectorAll("[data-poll]")) {
    const again = () => setTimeout(() => refresh(part).catch(() => {}).finally(again), Number(part.dataset.poll) * 1000);
    again();
    document.addEventListener("visibilitychange", () => refresh(part).catch(() => {}));
  }
})();
