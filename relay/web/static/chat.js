// The chat: asks /v1/messages with the key that its person enters, and shows the stream as it comes,
// the tokens, their price and the limits that are left. The key stays in this tab.
"use strict";

(() => {
  const KEY = "relay-key";
  const find = (id) => document.getElementById(id);
  const chat = find("chat");
  const texts = JSON.parse(chat.dataset.texts);
  const language = document.documentElement.lang;
  const number = new Intl.NumberFormat(language);
  const dollars = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", minimumFractionDigits: 2, maximumFractionDigits: 6 });
  const clock = new Intl.DateTimeFormat(language, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

  let key = sessionStorage.getItem(KEY) ?? "";
  let messages = [];
  let sum = 0;
  let running = null;  // the controller of the request in flight
  let limits = [];

  const show = (element, text) => { element.textContent = text ?? ""; element.hidden = !text; };
  const filled = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
  const headers = () => ({ "x-api-key": key, "anthropic-version": "2023-06-01", "content-type": "application/json" });

  // --- the key ---

  async function useKey(candidate) {
    key = candidate;
    show(find("key-problem"), "");
    let answer;
    try {
      answer = await fetch("/v1/usage", { headers: headers() });
    } catch {
      return show(find("key-problem"), texts.unreachable);
    }
    if (answer.status === 401) return forget(texts.wrong_key);
    if (!answer.ok) return show(find("key-problem"), await wordsOf(answer));
    sessionStorage.setItem(KEY, key);
    showUsage(await answer.json());
    find("key-form").hidden = true;
    find("key-known").hidden = false;
    find("own-key").value = "";
    find("key-hint").textContent = filled(texts.using, { hint: `${key.slice(0, 14)}…${key.slice(-4)}` });
    find("words").focus();
  }

  function forget(problem) {
    key = "";
    sessionStorage.removeItem(KEY);
    find("key-form").hidden = false;
    find("key-known").hidden = true;
    show(find("key-problem"), problem);
  }

  // --- tokens, price, limits ---

  function price(usage) {
    const prices = JSON.parse(find("model").selectedOptions[0]?.dataset.prices ?? "{}");
    let micro = 0;
    for (const [kind, each] of Object.entries(prices)) micro += (usage[kind] ?? 0) * each;
    return Object.keys(prices).length ? micro / 1e6 : null;
  }

  function showTokens(usage, isEstimate) {
    const about = isEstimate ? "≈ " : "";
    find("in").textContent = number.format((usage.input_tokens ?? 0) + (usage.cache_creation_input_tokens ?? 0));
    find("cached").textContent = number.format(usage.cache_read_input_tokens ?? 0);
    find("out").textContent = about + number.format(usage.output_tokens ?? 0);
    const cost = price(usage);
    find("cost").textContent = cost === null ? "–" : about + dollars.format(cost);
    return cost ?? 0;
  }

  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

  function period(seconds) {
    const [size, unit] = UNITS.find(([size]) => seconds % size === 0);
    return `${seconds / size} ${unit}`;
  }

  function showUsage(usage) {
    limits = usage.limits.map((one) => ({ ...one, name: filled(texts[one.kind], { period: period(one.period_seconds) }) }));
    if (usage.balance_usd !== null) limits.push({ name: texts.balance, text: dollars.format(usage.balance_usd) });
    drawLimits();
  }

  // An answer's fields have the limits of requests and tokens that are nearest.
  function showFields(fields) {
    for (const [kind, prefix] of [["requests", "x-ratelimit"], ["requests", "anthropic-ratelimit-requests"], ["tokens", "anthropic-ratelimit-tokens"]]) {
      const [limit, remaining] = ["limit", "remaining"].map((name) => fields.get(`${prefix}-${name}`));
      const one = limits.find((other) => other.kind === kind && other.limit === Number(limit));
      if (limit === null || remaining === null || !one) continue;
      one.remaining = Number(remaining);
      one.reset = fields.get(`${prefix}-reset`) ?? one.reset;
    }
    drawLimits();
  }

  function drawLimits() {
    const list = find("limits");
    list.replaceChildren(...limits.map((one) => {
      const row = document.createElement("li");
      const line = document.createElement("span");
      line.className = "line";
      const name = document.createElement("span");
      const left = document.createElement("b");
      name.textContent = one.name;
      left.textContent = one.text ?? filled(texts.left, { left: number.format(one.remaining), size: number.format(one.limit) });
      line.append(name, left);
      row.append(line);
      if (one.limit) {
        const bar = document.createElement("progress");
        bar.max = one.limit;
        bar.value = one.limit - one.remaining;
        bar.setAttribute("aria-label", one.name);
        row.className = one.remaining === 0 ? "spent" : one.remaining * 5 <= one.limit ? "low" : "";
        row.append(bar);
        if (one.remaining < one.limit && one.reset) {
          const reset = document.createElement("small");
          reset.textContent = filled(texts.resets, { at: clock.format(new Date(one.reset)) });
          row.append(reset);
        }
      }
      return row;
    }));
  }

  // --- errors in words ---

  async function wordsOf(answer) {
    let stated = "";
    try { stated = (await answer.json()).error.message; } catch { /* no JSON: the status says it */ }
    return words(answer.status, stated, answer.headers.get("retry-after"));
  }

  // The API's errors are in English; the page knows those of the relay in its language.
  async function inLanguage(stated) {
    if (!stated || language === "en") return stated;
    try {
      // Not in the address, which proxies log: an upstream's error may quote the prompt.
      const said = encodeURIComponent(stated.slice(0, 1000));
      const answer = await fetch("/dashboard/chat/words", { headers: { "x-said": said } });
      return answer.ok ? await answer.text() : stated;
    } catch {
      return stated;
    }
  }

  async function words(status, stated, wait) {
    const known = texts[`error_${status}`] ?? (status >= 500 ? texts.error_529 : texts.failed);
    const seconds = Number(wait);
    const until = !seconds ? "" : seconds < 600
      ? filled(texts.wait, { seconds })
      : filled(texts.later, { at: clock.format(new Date(Date.now() + seconds * 1000)) });
    return [known, await inLanguage(stated), until].filter(Boolean).join(" ");
  }

  const STATUSES = { invalid_request_error: 400, authentication_error: 401, permission_error: 403, not_found_error: 404, request_too_large: 413, rate_limit_error: 429, overloaded_error: 529 };

  // --- one answer ---

  function say(role, text) {
    const entry = document.createElement("div");
    entry.className = `said ${role}`;
    const who = document.createElement("b");
    who.textContent = role === "user" ? texts.you : find("model").value;
    const body = document.createElement("div");
    body.textContent = text;
    entry.append(who, body);
    find("talk").append(entry);
    find("talk").scrollTop = find("talk").scrollHeight;
    return entry;
  }

  async function* events(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split(/\r?\n\r?\n/);
      rest = parts.pop();
      for (const part of parts) {
        const data = part.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()).join("\n");
        if (data) yield JSON.parse(data);
      }
    }
  }

  async function ask(question) {
    show(find("problem"), "");
    say("user", question);
    const entry = say("assistant", "");
    entry.classList.add("runs");
    const body = entry.lastChild;
    const asked = [...messages, { role: "user", content: question }];
    const state = { text: "", usage: {}, isEnded: false };
    running = new AbortController();
    turn(true);
    let problem = "";
    try {
      problem = await stream(asked, body, state, running.signal);
    } catch (error) {
      problem = error.name === "AbortError" ? "" : state.text ? texts.cut : texts.unreachable;
      if (error.name === "AbortError") note(entry, texts.stopped);
    }
    entry.classList.remove("runs");
    running = null;
    turn(false);
    sum += showTokens(state.usage, !state.isEnded);
    find("sum").textContent = dollars.format(sum);
    if (state.text) messages = [...asked, { role: "assistant", content: state.text }];
    else { entry.remove(); if (problem) find("talk").lastChild?.remove(); }
    show(find("problem"), problem);
    if (problem && !state.text && !find("words").value) find("words").value = question;
    if (key) refresh();
  }

  // Returns the words of an error; empty: there was none.
  async function stream(asked, body, state, signal) {
    const started = performance.now();
    const request = { model: find("model").value, max_tokens: Number(find("max-tokens").value), stream: true, messages: asked };
    const answer = await fetch("/v1/messages", { method: "POST", headers: headers(), body: JSON.stringify(request), signal });
    showFields(answer.headers);
    if (!answer.ok) return wordsOf(answer);
    for await (const event of events(answer.body)) {
      if (event.type === "message_start") state.usage = { ...event.message.usage };
      if (event.type === "content_block_start" && event.content_block.type === "thinking") body.dataset.state = texts.thinking;
      if (event.type === "content_block_delta" && event.delta.type === "text_delta") {
        if (!state.text) find("first").textContent = `${number.format(Math.round(performance.now() - started))} ms`;
        state.text += event.delta.text;
        state.usage.output_tokens = Math.max(state.usage.output_tokens ?? 0, Math.ceil(state.text.length / 4));
        const talk = find("talk");
        const isAtEnd = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 40;
        body.append(event.delta.text);
        if (isAtEnd) talk.scrollTop = talk.scrollHeight;
        showTokens(state.usage, true);
      }
      if (event.type === "message_delta") {
        Object.assign(state.usage, event.usage);
        showTokens(state.usage, false);
      }
      if (event.type === "message_stop") state.isEnded = true;
      if (event.type === "error" && state.text) return `${texts.cut} ${await inLanguage(event.error.message)}`;
      if (event.type === "error") return words(STATUSES[event.error.type] ?? 500, event.error.message, null);
    }
    if (!state.isEnded) return texts.cut;
    return state.text ? "" : texts.no_answer;
  }

  async function refresh() {
    try {
      const answer = await fetch("/v1/usage", { headers: headers() });
      if (answer.ok) showUsage(await answer.json());
    } catch { /* the limits stay as the answer had them */ }
  }

  function note(entry, text) {
    const element = document.createElement("small");
    element.textContent = text;
    entry.append(element);
  }

  function turn(isRunning) {
    find("stop").hidden = !isRunning;
    find("send").hidden = isRunning;
  }

  // --- the page ---

  const most = () => Number(find("model").selectedOptions[0]?.dataset.most);

  // Whether the longest answer is a length that the model gives.
  function hasLength() {
    const field = find("max-tokens");
    const length = Number(field.value);
    const isRight = Number.isInteger(length) && length >= 1 && length <= most();
    field.setAttribute("aria-invalid", String(!isRight));
    return isRight;
  }

  find("model").addEventListener("change", () => { find("max-tokens").max = most(); });

  find("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) return;
    if (!key) { show(find("problem"), texts.error_401); find("own-key").focus(); return; }
    const question = find("words").value.trim();
    if (!question) return;
    if (!hasLength()) { show(find("problem"), filled(texts.bad_max, { most: number.format(most()) })); find("max-tokens").focus(); return; }
    find("words").value = "";
    ask(question);
  });
  find("words").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    find("ask").requestSubmit();
  });
  find("stop").addEventListener("click", () => running?.abort());
  find("anew").addEventListener("click", () => {
    running?.abort();
    messages = [];
    find("talk").replaceChildren();
    show(find("problem"), "");
  });
  find("key-form").addEventListener("submit", (event) => { event.preventDefault(); useKey(find("own-key").value.trim()); });
  find("forget").addEventListener("click", () => forget(""));
  chat.hidden = false;
  if (key) useKey(key);
})();
