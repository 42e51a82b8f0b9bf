// Forms that a passkey answers: `<form data-passkey="make|use" data-options="/…">`. Its button asks the
// relay for a challenge, then the browser for a passkey, and sends what it got as `credential`.
"use strict";

(() => {
  const library = window.SimpleWebAuthnBrowser;

  function say(form, text) {
    const place = form.querySelector("[data-problem]");
    place.textContent = text;
    place.hidden = !text;
  }

  async function options(form) {
    const fields = new URLSearchParams(new FormData(form));
    fields.delete("credential");
    const answer = await fetch(form.dataset.options, { method: "POST", body: fields });
    const document = await answer.json();
    if (!answer.ok) throw new Error(document.problem);
    return document;
  }

  async function send(form) {
    const button = form.querySelector("button");
    button.disabled = true;
    say(form, "");
    let optionsJSON;
    try {
      optionsJSON = await options(form);
    } catch (error) {
      say(form, error.message || form.dataset.failed);
      button.disabled = false;
      return;
    }
    try {
      const start = form.dataset.passkey === "make" ? library.startRegistration : library.startAuthentication;
      form.elements.credential.value = JSON.stringify(await start({ optionsJSON }));
    } catch {  // somebody said no, or the device has no passkey for this site
      say(form, form.dataset.failed);
      button.disabled = false;
      return;
    }
    form.submit();
  }

  if (!library || !library.browserSupportsWebAuthn()) return;
  for (const form of document.querySelectorAll("form[data-passkey]")) {
    form.hidden = false;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      send(form);
    });
  }
})();
