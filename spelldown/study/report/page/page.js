"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const SVG = "http://www.w3.org/2000/svg";
  const KEPT = "spelldown " + location.pathname;
  const state = { row: null, epoch: null, chosen: {} };
  try { Object.assign(state, JSON.parse(sessionStorage.getItem(KEPT)) || {}); } catch (e) { /* none */ }

  // Which part, measure and utterance are shown.
  function choose(name, value) {
    const there = all("[data-choose='" + name + "']").some(b => b.dataset.value === value);
    if (!there) return;
    state.chosen[name] = value;
    all("[data-choose='" + name + "']").forEach(b => b.setAttribute("aria-pressed", b.dataset.value === value));
    all("[data-part], [data-measure], [data-utterance]").forEach(one => {
      one.hidden = Object.entries(state.chosen).some(([key, wanted]) => one.dataset[key] !== undefined && one.dataset[key] !== wanted);
    });
  }
  const first = {};
  all("[data-choose]").forEach(button => {
    const { choose: name, value } = button.dataset;
    first[name] = first[name] || value;
    button.addEventListener("click", () => choose(name, value));
  });
  for (const name in first) state.chosen[name] = state.chosen[name] || first[name];
  for (const name in first) choose(name, all("[data-choose='" + name + "']").some(b => b.dataset.value === state.chosen[name]) ? state.chosen[name] : first[name]);

  // Curves.
  const panels = document.getElementById("panels"), legend = document.getElementById("legend");
  const HEIGHT = 190, LEFT = 44, RIGHT = 8, TOP = 8, BOTTOM = 20, LABELS = 6;
  function make(name, attributes, parent, text) {
    const one = document.createElementNS(SVG, name);
    for (const key in attributes) one.setAttribute(key, attributes[key]);
    if (text !== undefined) one.textContent = text;
    if (parent) parent.appendChild(one);
    return one;
  }
  const told = value => value === 0 ? "0" : Math.abs(value) >= 1000 || Math.abs(value) < 0.01 ? (+value.toPrecision(3)).toExponential().replace("e+", "e") : String(+value.toPrecision(3));
  function steps(low, high, count) {
    const rough = (high - low) / count, size = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map(m => m * size).find(s => s >= rough);
    const found = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(+(n * step).toPrecision(10));
    return found;
  }
  function decades(low, high) {
    const found = [], few = high / low < 300, every = Math.ceil(Math.log10(high / low) / LABELS);
    for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++)
      for (const m of few ? [1, 2, 5] : power % every ? [] : [1]) { const v = m * 10 ** power; if (v >= low && v <= high) found.push(v); }
    return found;
  }
  function draw(panel, curve) {
    const rows = data.rows.filter((_, place) => state.row === null || state.row === place);
    const runs = rows.flatMap(row => row.runs.map((run, nth) => ({ row, run, nth })));
    const values = runs.flatMap(({ run }) => run[curve.key].filter(v => v !== null));
    const svg = panel.querySelector("svg");
    svg.replaceChildren();
    if (!values.length) { make("text", { x: LEFT, y: 40 }, svg, "nothing yet"); return; }
    const width = panel.clientWidth, last = Math.max(2, ...runs.flatMap(({ run }) => run.epoch));
    svg.setAttribute("height", HEIGHT);
    const positive = values.filter(v => v > 0);
    const log = curve.log && positive.length === values.length && Math.max(...values) / Math.min(...positive) > 15;
    let low = log ? Math.min(...positive) : curve.zero ? 0 : Math.min(...values), high = Math.max(...values);
    if (curve.top) high = curve.top;
    const constant = high === low, only = high;
    if (log) { low /= 1.1; high *= 1.1; } else { const room = (high - low || Math.abs(high) || 1) * 0.05; high += room; if (!curve.zero) low -= room; }
    const marks = constant ? [only] : log ? decades(low, high) : steps(low, high, 4);
    const longest = Math.max(...marks.map(v => { const one = make("text", {}, svg, told(v)), wide = one.getComputedTextLength(); one.remove(); return wide; }));
    const left = Math.max(LEFT, Math.ceil(longest) + 8);
    const scale = v => log ? Math.log(v) : v;
    const x = e => left + (e - 1) / (last - 1) * (width - left - RIGHT);
    const y = v => TOP + (scale(high) - scale(Math.min(Math.max(v, low), high))) / (scale(high) - scale(low)) * (HEIGHT - TOP - BOTTOM);
    for (const v of marks) {
      make("line", { class: "grid", x1: left, x2: width - RIGHT, y1: y(v), y2: y(v) }, svg);
      make("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, svg, told(v));
    }
    for (const e of steps(1, last, 5)) if (e >= 1 && Number.isInteger(e)) make("text", { x: x(e), y: HEIGHT - 5, "text-anchor": "middle" }, svg, e);
    for (const { row, run, nth } of runs) {
      let path = "", pen = false;
      run.epoch.forEach((e, n) => { const v = run[curve.key][n]; if (v === null) { pen = false; return; } path += (pen ? "L" : "M") + x(e).toFixed(1) + " " + y(v).toFixed(1); pen = true; });
      const dash = state.row !== null && nth ? 3 * nth + " 3" : ["", "6 3", "2 3"][row.dash % 3];
      make("path", { class: "k" + row.colour, d: path, "stroke-dasharray": dash, "stroke-opacity": row.base ? 1 : 0.85 }, svg);
      if (run.epoch.length === 1 && run[curve.key][0] !== null) make("circle", { class: "k" + row.colour, cx: x(run.epoch[0]), cy: y(run[curve.key][0]), r: 2.5 }, svg);
    }
    panel.querySelector("h3").textContent = curve.name + (log ? " (logarithmic)" : "");
    panel.at = px => Math.min(last, Math.max(1, Math.round(1 + (px - left) / (width - left - RIGHT) * (last - 1))));
    panel.x = x;
  }
  function tell(panel, curve, px) {
    const epoch = panel.at(px), svg = panel.querySelector("svg");
    all(".cross", svg).forEach(one => one.remove());
    make("line", { class: "cross", x1: panel.x(epoch), x2: panel.x(epoch), y1: TOP, y2: HEIGHT - BOTTOM }, svg);
    const found = [];
    data.rows.forEach((row, place) => {
      if (state.row !== null && state.row !== place) return;
      const there = row.runs.map(run => run[curve.key][run.epoch.indexOf(epoch)]).filter(v => v !== undefined && v !== null);
      if (there.length) found.push([row, there.reduce((a, b) => a + b) / there.length]);
    });
    found.sort((a, b) => a[1] - b[1]);
    const tip = panel.querySelector(".tip");
    tip.replaceChildren();
    const head = document.createElement("b");
    head.textContent = "epoch " + epoch;
    tip.appendChild(head);
    for (const [row, value] of found.slice(0, 10)) {
      const line = document.createElement("div"), who = document.createElement("span"), what = document.createElement("span"), key = document.createElement("i");
      key.className = "key k" + row.colour;
      who.append(key, row.name); what.textContent = told(value);
      line.append(who, what); tip.appendChild(line);
    }
    if (found.length > 10) tip.append("and " + (found.length - 10) + " more");
    tip.hidden = false;
    const left = panel.x(epoch) < panel.clientWidth / 2;
    tip.style.left = left ? panel.x(epoch) + 10 + "px" : "auto";
    tip.style.right = left ? "auto" : panel.clientWidth - panel.x(epoch) + 10 + "px";
  }
  function redraw() { all(".panel").forEach((panel, n) => draw(panel, data.curves[n])); }
  function alone(place) {
    state.row = place;
    all("button", legend).forEach((button, n) => button.setAttribute("aria-pressed", (n === 0 ? null : n - 1) === place));
    redraw();
  }
  if (panels) {
    if (state.row !== null && !(state.row < data.rows.length)) state.row = null;
    for (const curve of data.curves) {
      const panel = document.createElement("div"), head = document.createElement("h3"), tip = document.createElement("div");
      panel.className = "panel"; head.textContent = curve.name; tip.className = "tip"; tip.hidden = true;
      const svg = make("svg", { height: HEIGHT, role: "img", "aria-label": curve.name + " by epoch" });
      panel.append(head, svg, tip); panels.appendChild(panel);
      svg.addEventListener("pointermove", event => { if (panel.at) tell(panel, curve, event.clientX - svg.getBoundingClientRect().left); });
      svg.addEventListener("pointerleave", () => { tip.hidden = true; all(".cross", svg).forEach(one => one.remove()); });
    }
    ["all rows", ...data.rows.map(row => row.name)].forEach((name, n) => {
      const button = document.createElement("button");
      button.type = "button";
      if (n) { const key = document.createElement("span"), row = data.rows[n - 1]; key.className = "key k" + row.colour + (row.dash ? " d" + row.dash % 3 : ""); button.append(key); }
      button.append(name);
      button.addEventListener("click", () => alone(n === 0 || state.row === n - 1 ? null : n - 1));
      legend.appendChild(button);
    });
    alone(state.row);
    new ResizeObserver(redraw).observe(panels);
  }

  // Attention over the epochs.
  const slider = document.getElementById("epoch");
  if (slider) {
    const says = document.getElementById("epoch-says"), play = document.getElementById("play");
    const show = () => {
      const epoch = data.epochs[+slider.value];
      state.epoch = +slider.value === data.epochs.length - 1 ? null : epoch;
      says.textContent = "epoch " + epoch;
      all("[data-strip]").forEach(figure => {
        const strip = data.strips[+figure.dataset.strip];
        const there = Object.keys(strip).map(Number).filter(e => e <= epoch), shown = there.length ? Math.max(...there) : Math.min(...Object.keys(strip).map(Number));
        figure.querySelector("img").src = strip[shown];
        figure.querySelector(".at").textContent = "epoch " + shown;
      });
    };
    if (state.epoch !== null && data.epochs.includes(state.epoch)) { slider.value = data.epochs.indexOf(state.epoch); show(); }
    slider.addEventListener("input", show);
    let playing = null;
    const pause = () => { clearInterval(playing); playing = null; play.textContent = "▶"; };
    play.addEventListener("click", () => {
      if (playing) { pause(); return; }
      if (+slider.value === +slider.max) { slider.value = 0; show(); }
      play.textContent = "❚❚";
      playing = setInterval(() => { slider.value = +slider.value + 1; show(); if (+slider.value === +slider.max) pause(); }, 500);
    });
    all(".frame").forEach(frame => frame.addEventListener("click", () => frame.classList.toggle("whole")));
  }

  // While the study runs: the page as it is now, at the same place.
  const keep = () => { try { sessionStorage.setItem(KEPT, JSON.stringify({ ...state, scroll: scrollY, open: all("details").map(d => d.open) })); } catch (e) { /* it begins anew */ } };
  if (data.refresh) {
    all("details").forEach((one, n) => { one.open = Boolean((state.open || [])[n]); });
    if (state.scroll) scrollTo(0, state.scroll);
    const again = () => {
      if (document.hidden || String(getSelection())) { setTimeout(again, 2000); return; }
      keep(); location.reload();
    };
    setTimeout(again, 1000 * data.refresh);
  }
  addEventListener("pagehide", keep);
})();
