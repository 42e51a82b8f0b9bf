// Takes a new key along to the chat. It stays in this tab: nothing of it is sent.
"use strict";

document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-take-key]");
  if (link) sessionStorage.setItem("relay-key", document.querySelector(link.dataset.takeKey).textContent);
});
