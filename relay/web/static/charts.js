// The charts of the usage page. Each loads by itself; the answer to an earlier question never
// overwrites that to a later one.
"use strict";

(() => {
  const language = document.documentElement.lang;
  const whole = new Intl.NumberFormat(language);
  const short = new Intl.NumberFormat(language, { notation: "compact", maximumFractionDigits: 1 });
  const money = new Intl.NumberFormat(language, { style: "currency", currency: "USD", maximumFractionDigits: 6 });
  const FORMAT = {
    requests: [(v) => whole.format(v), (v) => short.format(v)],
    tokens: [(v) => whole.format(v), (v) => short.format(v)],
    cost: [(v) => money.format(v), (v) => v && v < 0.1 ? money.format(v) : "$" + short.format(v)],
    cache: [(v) => v + " %", (v) => v + " %"],
    first: [seconds, seconds],
    whole: [seconds, seconds],
  };

  function seconds(v) { return v < 1 ? whole.format(Math.round(v * 1000)) + " ms" : short.format(v) + " s"; }

  function colour(name) {
    const probe = document.createElement("span");
    probe.style.color = `var(--${name})`;
    document.body.append(probe);
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  }
  const faded = (text, alpha) => text.replace(/^rgb\((.*)\)$/, `rgba($1, ${alpha})`);

  function say(box, text) {
    box.replaceChildren(Object.assign(document.createElement("p"), { textContent: text }));
  }

  // Groups lie on one another: each row becomes the sum of itself and those below it.
  function stacked(rows) {
    const sums = [];
    let below = rows.length ? rows[0].map(() => 0) : [];
    for (const row of rows) {
      below = row.map((value, index) => (value ?? 0) + below[index]);
      sums.push(below);
    }
    return sums;
  }

  function draw(box, data) {
    const metric = box.dataset.chart;
    const [exact, brief] = FORMAT[metric];
    const isLine = ["cache", "first", "whole"].includes(metric);
    const rows = data.groups.map((group) => group.values);
    const tops = isLine ? rows : stacked(rows);
    // Drawn from the top of the stack down, so that each lower one covers its part.
    const order = data.groups.map((_, index) => index).reverse();
    const muted = colour("muted"), line = colour("line");
    const bars = uPlot.paths.bars({ size: [0.82, 48], align: 1 });
    const axis = { stroke: muted, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 4 }, font: "12px system-ui, sans-serif" };
    const tones = [null, ...order.map((index) => colour(`series-${(index % 8) + 1}`))];
    const series = order.map((index, place) => {
      const tone = tones[place + 1];
      return {
        label: data.groups[index].name || box.parentElement.querySelector("h2").textContent,
        stroke: tone, fill: metric === "cache" ? faded(tone, 0.12) : isLine ? undefined : tone, width: isLine ? 2 : 0,
        paths: isLine ? undefined : bars, points: { show: isLine, size: 5, fill: tone },
        value: (_, value, seriesIndex, at) => at == null || rows[index][at] == null ? "" : exact(rows[index][at]),
      };
    });
    const size = () => ({ width: box.clientWidth, height: 196 });
    const chart = new uPlot({
      ...size(),
      padding: [8, 28, 0, 0],
      cursor: { y: false, points: { show: false } },
      legend: { live: true, markers: { width: 0, fill: (_, index) => tones[index] } },
      scales: { x: { time: true, range: (_, min, max) => [min, isLine ? max : max + data.step] }, y: { range: (_, min, max) => [0, metric === "cache" ? 100 : (max || 1) * 1.06] } },
      axes: [
        { ...axis, space: 64, grid: { show: false }, values: (_, splits) => splits.map((at, index) => label(at, index, splits, data.step)) },
        { ...axis, size: 58, values: (_, splits) => splits.map(brief) },
      ],
      series: [{ value: (_, at) => at == null ? "" : moment(at, data.step) }, ...series],
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), data.step < 86400 ? undefined : "Etc/UTC"),
    }, [data.times, ...order.map((index) => tops[index])], box);
    new ResizeObserver(() => chart.setSize(size())).observe(box);
    return chart;
  }

  function zone(step) { return step < 86400 ? {} : { timeZone: "UTC" }; }
  function moment(at, step) {
    const form = step < 86400 ? { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" } : { year: "numeric", month: "short", day: "numeric" };
    return new Intl.DateTimeFormat(language, { ...form, ...zone(step) }).format(at * 1000);
  }
  function label(at, index, splits, step) {
    const gap = splits.length > 1 ? splits[1] - splits[0] : step;
    const form = gap < 86400 ? { hour: "2-digit", minute: "2-digit", hourCycle: "h23" } : { month: "short", day: "numeric" };
    if (gap < step) return "";
    return new Intl.DateTimeFormat(language, { ...form, ...zone(step) }).format(at * 1000);
  }

  const latest = new WeakMap(), drawn = new WeakMap();
  async function load(box) {
    latest.get(box)?.abort();
    const turn = new AbortController();
    latest.set(box, turn);
    try {
      const answer = await fetch(`/dashboard/usage/data?metric=${box.dataset.chart}&${box.dataset.query}`, { signal: turn.signal, headers: { "hx-request": "true" } });
      if (!answer.ok) throw new Error(answer.status);
      const data = await answer.json();
      if (latest.get(box) !== turn) return;
      drawn.get(box)?.destroy();
      box.replaceChildren();
      if (!data.groups.length) { say(box, box.dataset.empty); return; }
      drawn.set(box, draw(box, data));
    } catch (error) {
      if (error.name !== "AbortError" && latest.get(box) === turn) say(box, box.dataset.failed);
    }
  }

  const boxes = [...document.querySelectorAll("[data-chart]")];
  boxes.forEach(load);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => boxes.forEach(load));
})();
