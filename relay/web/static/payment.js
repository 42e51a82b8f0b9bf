// What became of a payment, for somebody who came back from Checkout: looked up again while it is
// not known. Without this script, a reload of the page does the same.
"use strict";

(() => {
  const part = document.querySelector("[data-payment]");

  async function look() {
    if (!document.hidden) {
      const answer = await fetch(location.pathname, { headers: { "hx-request": "true" } });
      if (answer.status === 401) { location.reload(); return; }
      if (answer.ok) part.innerHTML = await answer.text();
    }
    again();
  }

  function again() {
    const waiting = part.querySelector("[data-waiting]");
    if (waiting) setTimeout(() => look().catch(again), Number(waiting.dataset.waiting) * 1000);
  }
  again();
})();
