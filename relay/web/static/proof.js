// Solves the puzzle of the sign-up form in a worker, while its fields are filled in.
"use strict";

(() => {
  const form = document.querySelector("form[data-proof]");
  const button = form.querySelector("button");
  const state = form.querySelector("[data-proof-state]");
  const worker = new Worker(form.dataset.worker);
  let waiting = false;
  state.textContent = state.dataset.working;
  worker.onmessage = (event) => {
    form.elements.answer.value = event.data;
    state.textContent = state.dataset.ready;
    worker.terminate();
    if (waiting) form.submit();
  };
  form.addEventListener("submit", (event) => {
    if (form.elements.answer.value) return;
    event.preventDefault();  // sent as soon as the puzzle is solved
    waiting = true;
    button.disabled = true;
  });
  worker.postMessage(form.dataset.proof);
})();
