// What every page has: local times, copy buttons, questions before something is lost, forms that
// apply at once. Pages work without it.
"use strict";

window.relayPage = (() => {
  const language = document.documentElement.lang;
  const day = new Intl.DateTimeFormat(language, { month: "short", day: "numeric", year: "numeric" });
  const clock = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const short = new Intl.DateTimeFormat(language, { month: "short", day: "numeric" });
  const full = new Intl.DateTimeFormat(language, { dateStyle: "full", timeStyle: "long" });
  const relative = new Intl.RelativeTimeFormat(language, { numeric: "always", style: "short" });

  function until(ms) {
    const minutes = Math.max(1, Math.round(ms / 60000));
    if (minutes < 120) return relative.format(minutes, "minute");
    if (minutes < 2880) return relative.format(Math.round(minutes / 60), "hour");
    return relative.format(Math.round(minutes / 1440), "day");
  }

  // `<time data-moment>`: in the browser's own time zone.
  function localise(root) {
    const now = new Date();
    for (const element of root.querySelectorAll("time[data-moment]")) {
      const at = new Date(element.dateTime);
      const isToday = at.toDateString() === now.toDateString();
      const date = at.getFullYear() === now.getFullYear() ? short : day;
      let text = isToday ? clock.format(at) : `${date.format(at)}, ${clock.format(at)}`;
      if (at > now) text += ` (${until(at - now)})`;
      element.textContent = text;
      element.title = full.format(at);
      element.removeAttribute("data-moment");
    }
  }

  async function copy(button) {
    const text = document.querySelector(button.dataset.copy).textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // no clipboard without https: select it, for the keyboard
      const range = document.createRange();
      range.selectNodeContents(document.querySelector(button.dataset.copy));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    const before = button.textContent;
    button.textContent = button.dataset.copied;
    setTimeout(() => { button.textContent = before; }, 1600);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
  });
  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !confirm(question)) event.preventDefault();
  });
  // A second click sends a form once. It may be sent again later: the first answer may be a file.
  const sent = new WeakMap();
  document.addEventListener("submit", (event) => {
    if (event.defaultPrevented || event.target.method !== "post") return;
    if (performance.now() - (sent.get(event.target) ?? -Infinity) < 5000) event.preventDefault();
    else sent.set(event.target, performance.now());
  });
  addEventListener("pageshow", (event) => {
    if (event.persisted) for (const form of document.forms) sent.delete(form);
  });
  // A key that the chat keeps in this tab goes with the session.
  document.addEventListener("submit", (event) => {
    if (new URL(event.target.action).pathname === "/logout") sessionStorage.removeItem("relay-key");
  });
  document.addEventListener("change", (event) => {
    const form = event.target.closest("form[data-at-once]");
    if (form && event.target.type !== "date") form.requestSubmit();
  });
  // A field without a value is no part of the address.
  document.addEventListener("formdata", (event) => {
    if (event.target.method !== "get") return;
    for (const [name, value] of [...event.formData]) if (!value) event.formData.delete(name);
  });
  document.addEventListener("htmx:after:swap", () => localise(document));
  // On a phone, the present page's link may be beyond the edge of its row.
  for (const link of document.querySelectorAll("nav [aria-current]")) {
    const row = link.parentElement;
    if (row.scrollWidth > row.clientWidth) row.scrollLeft = link.offsetLeft - (row.clientWidth - link.clientWidth) / 2;
  }
  localise(document);
  return { localise };
})();
