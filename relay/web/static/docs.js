// The documentation: its search, the mark of the section that is read, and a key in the examples.
// Pages are complete without it.
"use strict";

(() => {
  document.documentElement.dataset.script = "";

  // A key stays in this page's memory: it is neither sent nor stored.
  const own = document.querySelector("#own-key");
  if (own) {
    const places = [...document.querySelectorAll("mark.key")];
    const blank = places.length ? places[0].textContent : "";
    own.addEventListener("input", () => {
      const key = own.value.trim();
      for (const place of places) place.textContent = key || blank;
    });
  }

  const field = document.querySelector("#search");
  const found = document.querySelector("#found");
  const status = found.querySelector("p");
  const list = found.querySelector("ul");
  const MOST = 12;
  let index = null;

  async function load() {
    index ??= fetch(field.dataset.index).then((answer) => answer.json()).then((rows) =>
      rows.map(([path, anchor, title, heading, text]) => ({
        path, anchor, title, heading, text,
        head: `${title} ${heading}`.toLowerCase(), body: text.toLowerCase(),
      })));
    return index;
  }

  function excerpt(text, words) {
    const lower = text.toLowerCase();
    const places = words.map((word) => lower.indexOf(word)).filter((place) => place >= 0);
    const start = Math.max(0, (places.length ? Math.min(...places) : 0) - 30);
    return (start ? "…" : "") + text.slice(start, start + 110) + (start + 110 < text.length ? "…" : "");
  }

  function line(row, words) {
    const item = document.createElement("li");
    const link = item.appendChild(document.createElement("a"));
    link.href = row.path + (row.anchor ? "#" + row.anchor : "");
    link.appendChild(document.createElement("b")).textContent = row.heading;
    const where = row.heading === row.title ? "" : row.title + ": ";
    link.appendChild(document.createElement("small")).textContent = where + excerpt(row.text, words);
    return item;
  }

  async function search() {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    document.body.classList.toggle("searching", words.length > 0);
    found.hidden = words.length === 0;
    if (!words.length) return;
    const asked = field.value;
    const rows = await load();
    if (field.value !== asked) return;  // a later letter is on its way
    const rated = rows
      .map((row) => ({
        row,
        rate: words.every((word) => row.head.includes(word) || row.body.includes(word))
          ? words.reduce((sum, word) => sum + (row.head.includes(word) ? 3 : 1), 0) : 0,
      }))
      .filter((one) => one.rate)
      .sort((one, other) => other.rate - one.rate);
    status.textContent = rated.length
      ? field.dataset.found.replace("#", rated.length) : field.dataset.nothing;
    list.replaceChildren(...rated.slice(0, MOST).map((one) => line(one.row, words)));
  }

  field.addEventListener("input", search);
  field.addEventListener("focus", load, { once: true });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { field.value = ""; search(); }
    if (event.key === "ArrowDown") { event.preventDefault(); list.querySelector("a")?.focus(); }
    if (event.key === "Enter") list.querySelector("a")?.click();
  });
  list.addEventListener("keydown", (event) => {
    const item = event.target.closest("li");
    const next = { ArrowDown: item.nextElementSibling, ArrowUp: item.previousElementSibling }[event.key];
    if (next) { event.preventDefault(); next.querySelector("a").focus(); }
  });
  list.addEventListener("click", () => { field.value = ""; search(); });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.closest("input, textarea, select")) {
      event.preventDefault();
      field.focus();
    }
  });

  const links = new Map([...document.querySelectorAll(".docs-toc a")].map((link) => [link.hash.slice(1), link]));
  if (links.size) {
    const headings = [...document.querySelectorAll(".doc :is(h2, h3)[id]")];
    const mark = () => {
      const read = headings.findLast((one) => one.getBoundingClientRect().top < 120) ?? headings[0];
      for (const [name, link] of links) {
        if (name === read.id) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    };
    addEventListener("scroll", mark, { passive: true });
    mark();
  }
})();
