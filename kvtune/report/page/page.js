"use strict";

const study = JSON.parse(document.getElementById("study-data").textContent);
const points = (study.baseline ? [study.baseline] : []).concat(study.trials);
const drawn = points.concat(study.overlays).filter(p => p.drawn).sort((a, b) => a.chair_s - b.chair_s || a.f1 - b.f1);
const byKey = new Map(points.concat(study.overlays).map(p => [key(p), p]));
const RATES = [["chair_s", "CHAIR_S"], ["chair_i", "CHAIR_I"], ["precision", "precision"], ["recall", "recall"], ["f1", "F1"]];
const ROLE_NAMES = {chosen: "chosen", baseline: "baseline", published: "published preset", front: "front", complete: "other trials", raced: "raced out", overlay: "other method"};
const PAGE_LENGTH = 10;
const state = {selected: null, sort: {column: null, falling: false}, shown: PAGE_LENGTH};

/* Small tools. Text always goes in as text nodes, never as markup. */

function byId(id) { return document.getElementById(id); }
function key(point) { return point.overlay !== undefined ? `overlay-${point.overlay}` : point.number === null ? "baseline" : String(point.number); }
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
function tag(name, attributes = {}, ...children) { return fill(document.createElement(name), attributes, children); }
function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}
function breakable(label) {
  return label.length < 9 ? [label] : label.split("_").flatMap((part, i) => i ? ["_", tag("wbr"), part] : [part]);
}
function name(point) {
  if (point.overlay !== undefined) return point.label;
  return point.number === null ? "Baseline" : `Trial ${point.number}`;
}
function rate(value) { return value === null || value === undefined ? "–" : value.toFixed(1); }
function signed(value) { return (value < 0 ? "−" : "+") + Math.abs(value).toFixed(1); }
function parameter(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number" && !Number.isInteger(value)) return String(Number(value.toPrecision(3)));
  return value === undefined || value === null ? "" : String(value);
}
function interval(point, metric) {
  const bounds = point.intervals[metric];
  return bounds ? `${rate(bounds[0])}–${rate(bounds[1])}` : "";
}
function roleText(point) {
  if (point.overlay !== undefined) return point.kind;
  const words = point.roles.filter(role => role !== "complete" && role !== "baseline").map(role => ROLE_NAMES[role]);
  if (point.state === "running" || point.state === "failed") words.push(point.state);
  return words.join(", ");
}
function fullName(point) {
  const words = roleText(point);
  return words ? `${name(point)} · ${words}` : name(point);
}

/* Heading. */

byId("name").textContent = study.study;
byId("facts").textContent = study.facts;
const hasIntervals = points.some(p => Object.keys(p.intervals).length);
byId("intervals-label").hidden = !hasIntervals;
byId("zoom-label").hidden = study.front.length < 2;

/* The scatter. */

const SHAPES = {
  chosen: "M0,-8 L2.2,-2.9 7.6,-2.5 3.5,1.1 4.7,6.5 0,3.6 -4.7,6.5 -3.5,1.1 -7.6,-2.5 -2.2,-2.9Z",
  baseline: "M-6,-6H6V6H-6Z",
  published: "M0,-7.5 L7,5.5H-7Z",
  front: "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0Z",
  complete: "M-3.5,0a3.5,3.5 0 1,0 7,0a3.5,3.5 0 1,0 -7,0Z",
  raced: "M-3,-3L3,3M3,-3L-3,3",
  overlay: "M0,-6.5L6.5,0 0,6.5 -6.5,0Z",
};
const HOLLOW = ["baseline", "published", "overlay"];
/* One solid shape, and hollow ones over it, so that a point that is two things shows both. */
function shown(roles) {
  const solid = roles.find(role => !HOLLOW.includes(role));
  return (solid ? [solid] : []).concat(roles.filter(role => HOLLOW.includes(role)));
}
function shapes(roles) {
  return shown(roles).map(role => svg("g", {class: `role-${role}`},
    svg("path", {class: HOLLOW.includes(role) ? "shape hollow" : "shape", d: SHAPES[role]})));
}
function icon(roles) { return svg("svg", {viewBox: "-9 -9 18 18", "aria-hidden": "true"}, ...shapes(roles)); }

function limits(values) {
  const low = Math.min(...values), high = Math.max(...values), span = Math.max(high - low, 2), middle = (low + high) / 2;
  return [middle - span * 0.56, middle + span * 0.56];
}
function ticks([low, high], count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(factor => factor * power).find(value => value >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(Math.max(low, 0) / step); i * step <= Math.min(high, 100) + 1e-9; i++) found.push(Number((i * step).toFixed(6)));
  return found;
}

let places = [];
function draw() {
  const holder = byId("plot");
  const width = Math.max(holder.clientWidth, 260), height = Math.round(Math.min(460, Math.max(280, width * 0.62)));
  const right = width - 12, top = 12, bottom = height - 44;
  if (!drawn.length) { holder.replaceChildren(tag("p", {}, "No trial is judged yet.")); return; }
  let framed = drawn;
  if (byId("zoom").checked) framed = drawn.filter(p => p.roles.some(role => role !== "complete" && role !== "raced"));
  const withBars = byId("intervals").checked;
  const ends = metric => framed.flatMap(p => withBars && p.intervals[metric] && p.roles[0] !== "complete" && p.roles[0] !== "raced" ? [p[metric], ...p.intervals[metric]] : [p[metric]]);
  const xs = limits(ends("chair_s")), ys = limits(ends("f1"));
  const yTicks = ticks(ys, Math.floor(height / 45));
  const left = 30 + 7 * Math.max(...yTicks.map(value => String(value).length));
  const x = value => left + (value - xs[0]) / (xs[1] - xs[0]) * (right - left);
  const y = value => bottom - (value - ys[0]) / (ys[1] - ys[0]) * (bottom - top);
  const picture = svg("svg", {viewBox: `0 0 ${width} ${height}`, height, role: "group", "aria-label": `Scatter of ${drawn.length} points, CHAIR_S across and F1 up. The table of trials below has the same data.`});
  for (const value of ticks(xs, Math.max(2, Math.floor(width / 75)))) {
    picture.append(svg("line", {class: "grid", x1: x(value), x2: x(value), y1: top, y2: bottom}),
      svg("text", {x: x(value), y: bottom + 16, "text-anchor": "middle", "aria-hidden": "true"}, String(value)));
  }
  for (const value of yTicks) {
    picture.append(svg("line", {class: "grid", x1: left, x2: right, y1: y(value), y2: y(value)}),
      svg("text", {x: left - 6, y: y(value) + 4, "text-anchor": "end", "aria-hidden": "true"}, String(value)));
  }
  const clip = svg("clipPath", {id: "inside"}, svg("rect", {x: left, y: top - 10, width: right - left + 12, height: bottom - top + 10}));
  const inside = svg("g", {"clip-path": "url(#inside)"});
  picture.append(svg("path", {class: "axis", fill: "none", d: `M${left},${top}V${bottom}H${right}`}),
    svg("text", {x: right, y: height - 8, "text-anchor": "end", "aria-hidden": "true"}, "← lower is better · CHAIR_S %"),
    svg("text", {x: 0, y: 0, transform: `translate(12 ${top}) rotate(-90)`, "text-anchor": "end", "aria-hidden": "true"}, "F1 % · higher is better →"),
    svg("defs", {}, clip), inside);
  if (study.staircase.length > 1) inside.append(svg("path", {class: "staircase", d: "M" + study.staircase.map(([a, b]) => `${x(a)},${y(b)}`).join("L")}));
  if (study.cut_baseline.length > 1) inside.append(svg("path", {class: "cut-baseline", d: "M" + study.cut_baseline.map(cut => `${x(cut.chair_s)},${y(cut.f1)}`).join("L")}));
  const order = ["overlay", "raced", "complete", "front", "published", "baseline", "chosen"];
  const layered = [...drawn].sort((a, b) => order.indexOf(a.roles[0]) - order.indexOf(b.roles[0]));
  if (withBars) for (const point of layered) {
    if (point.roles[0] === "complete" || point.roles[0] === "raced") continue;
    const bars = svg("g", {class: `role-${point.roles[0]}`});
    const [across, up] = [point.intervals.chair_s, point.intervals.f1];
    if (across) bars.append(svg("line", {class: "interval", x1: x(across[0]), x2: x(across[1]), y1: y(point.f1), y2: y(point.f1)}));
    if (up) bars.append(svg("line", {class: "interval", x1: x(point.chair_s), x2: x(point.chair_s), y1: y(up[0]), y2: y(up[1])}));
    inside.append(bars);
  }
  const reachable = key(state.selected && state.selected.drawn ? state.selected : drawn[0]);
  for (const point of layered) {
    const label = `${fullName(point)}: CHAIR_S ${rate(point.chair_s)}, F1 ${rate(point.f1)}`;
    inside.append(svg("g", {
      class: "mark", "data-key": key(point), role: "button", "aria-label": label, "aria-pressed": "false",
      tabindex: key(point) === reachable ? "0" : "-1", transform: `translate(${x(point.chair_s)} ${y(point.f1)})`,
    }, svg("circle", {class: "halo", r: 11}), ...shapes(point.roles)));
  }
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.key : null;
  places = layered.map(point => ({point, x: x(point.chair_s), y: y(point.f1)})).filter(p => p.x >= left - 1 && p.x <= right + 1 && p.y >= top - 1 && p.y <= bottom + 1);
  holder.replaceChildren(picture);
  if (focused) { const again = markOf(focused); if (again) again.focus(); }
  showSelection();
}
function markOf(wanted) { return byId("plot").querySelector(`.mark[data-key="${wanted}"]`); }

/* Nearest point to the pointer, the topmost of coinciding ones. */
function nearest(event) {
  const picture = byId("plot").querySelector("svg");
  if (!picture) return null;
  const box = picture.getBoundingClientRect(), scale = box.width / picture.viewBox.baseVal.width;
  let best = null, distance = 22;
  for (const place of places) {
    const d = Math.hypot((event.clientX - box.left) / scale - place.x, (event.clientY - box.top) / scale - place.y);
    if (d <= distance) { best = place.point; distance = d; }
  }
  return best;
}
function coinciding(point) { return drawn.filter(p => p !== point && p.chair_s === point.chair_s && p.f1 === point.f1); }

function scores(point) {
  const list = tag("dl");
  const line = (label, value, small) => list.append(tag("dt", {}, label), tag("dd", {}, value, ...(small ? [" ", tag("small", {}, small)] : [])));
  for (const [metric, label] of RATES) line(label, point[metric] === null || point[metric] === undefined ? "–" : `${rate(point[metric])} %`, interval(point, metric));
  for (const [metric, label] of RATES) {
    const found = (metric === "chair_s" || metric === "f1") && point.differences ? point.differences[metric] : null;
    if (found) line(`${label} − baseline`, signed(found.value), `${signed(found.interval[0])} to ${signed(found.interval[1])}`);
  }
  if (point.ties && point.ties.length) line("tied with", point.ties.join(", "));
  if (point.length && point.length.flag) line("length", point.length.flag);
  line("words", rate(point.mean_words));
  if (point.images !== undefined) line("images", String(point.images));
  return list;
}
function parameters(point, names) {
  const list = tag("dl");
  for (const wanted of names) if (wanted in point.params) list.append(tag("dt", {}, wanted), tag("dd", {}, parameter(point.params[wanted])));
  return list;
}

function tip(point, left, top) {
  const box = byId("tip");
  byId("plot").querySelectorAll(".near").forEach(mark => mark.classList.remove("near"));
  if (!point) { box.hidden = true; return; }
  markOf(key(point)).classList.add("near");
  box.replaceChildren(tag("p", {}, fullName(point)), parameters(point, study.parameters), scores(point));
  const same = coinciding(point);
  if (same.length) box.append(tag("p", {}, `Same place: ${same.slice(0, 6).map(name).join(", ")}${same.length > 6 ? ", …" : ""}`));
  box.hidden = false;
  const room = document.documentElement.clientWidth;
  box.style.left = `${Math.max(8, Math.min(left + 16, room - box.offsetWidth - 8)) + window.scrollX}px`;
  const under = top + 16 + box.offsetHeight < window.innerHeight || top < box.offsetHeight + 16;
  box.style.top = `${(under ? top + 16 : top - box.offsetHeight - 12) + window.scrollY}px`;
}
byId("plot").addEventListener("pointermove", event => { if (event.pointerType !== "touch") tip(nearest(event), event.clientX, event.clientY); });
byId("plot").addEventListener("pointerleave", () => tip(null));
byId("plot").addEventListener("click", event => { const point = nearest(event); if (point) select(point); });
byId("plot").addEventListener("focusin", event => {
  const mark = event.target.closest(".mark");
  if (!mark || !mark.matches(":focus-visible")) return;
  const box = mark.getBoundingClientRect();
  tip(byKey.get(mark.dataset.key), box.left + box.width / 2, box.top + box.height / 2);
});
byId("plot").addEventListener("focusout", () => tip(null));
byId("plot").addEventListener("keydown", event => {
  const mark = event.target.closest(".mark");
  if (!mark) return;
  if (event.key === "Escape") { tip(null); return; }
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); select(byKey.get(mark.dataset.key)); return; }
  const at = drawn.findIndex(p => key(p) === mark.dataset.key);
  const to = {ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, Home: 0, End: drawn.length - 1}[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const next = drawn[Math.max(0, Math.min(drawn.length - 1, to))];
  mark.setAttribute("tabindex", "-1");
  markOf(key(next)).setAttribute("tabindex", "0");
  markOf(key(next)).focus();
});
byId("zoom").addEventListener("change", draw);
byId("intervals").addEventListener("change", draw);
new ResizeObserver(draw).observe(byId("plot"));

function legend() {
  const counts = new Map();
  for (const point of drawn) for (const role of point.roles) counts.set(role, (counts.get(role) || 0) + 1);
  const visible = new Set(drawn.flatMap(point => shown(point.roles)));
  for (const role of ["chosen", "baseline", "published", "front", "complete", "raced"]) {
    if (!visible.has(role)) continue;
    const many = role === "front" || role === "complete" || role === "raced" ? ` (${counts.get(role)})` : "";
    byId("legend").append(tag("li", {}, icon([role]), ROLE_NAMES[role] + many));
  }
  if (study.cut_baseline.length > 1) byId("legend").append(tag("li", {}, "⋯ baseline cut to fewer sentences"));
  for (const kind of new Set(study.overlays.map(p => p.kind))) byId("legend").append(tag("li", {}, icon(["overlay"]), kind));
  const undrawn = points.filter(p => !p.drawn && p.number !== null);
  for (const wanted of ["running", "failed"]) {
    const count = undrawn.filter(p => p.state === wanted).length;
    if (count) byId("legend").append(tag("li", {}, `${count} ${wanted}, not drawn`));
  }
}

/* The selected point. */

function copyable(command) {
  const button = tag("button", {type: "button"}, "Copy");
  const code = tag("code", {}, ...command.split(" ").flatMap((word, i) => i ? [" ", tag("span", {}, word)] : [tag("span", {}, word)]));
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command);
      button.textContent = "Copied";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return tag("div", {class: "command"}, code, button);
}
function select(point) {
  state.selected = point;
  state.shown = PAGE_LENGTH;
  history.replaceState(null, "", `#${typeof point.number === "number" ? "trial-" : ""}${key(point)}`);
  const body = byId("point-body");
  byId("point-title").replaceChildren(...(point.drawn ? [icon(point.roles)] : []), fullName(point));
  body.replaceChildren(scores(point));
  if (point.source) body.append(tag("p", {class: "notes"}, `From: ${point.source}`));
  if (typeof point.number === "number") {
    body.append(tag("h3", {}, "Parameters"), parameters(point, study.parameters.concat(study.shared_parameters)));
  }
  if (point.roles.includes("chosen")) body.append(tag("p", {class: "notes"}, `Chosen: ${study.chosen.reason}.`));
  if (typeof point.number === "number" && point.state === "complete") {
    body.append(tag("h3", {}, "As a preset"), copyable(study.export_command.replace("{number}", String(point.number))));
  }
  showSelection();
  listCaptions();
}
function showSelection() {
  const wanted = state.selected ? key(state.selected) : null;
  for (const mark of byId("plot").querySelectorAll(".mark")) {
    mark.classList.toggle("selected", mark.dataset.key === wanted);
    mark.setAttribute("aria-pressed", String(mark.dataset.key === wanted));
  }
  for (const row of byId("table").querySelectorAll("tbody tr")) {
    row.classList.toggle("selected", row.dataset.key === wanted);
    row.querySelector("button").setAttribute("aria-pressed", String(row.dataset.key === wanted));
  }
}

/* The table. */

function columns() {
  const found = [{label: "trial", value: p => p.number === null ? -1 : p.number}, {label: "what", value: roleText}];
  for (const wanted of study.parameters) found.push({label: wanted, value: p => p.params[wanted], text: p => parameter(p.params[wanted])});
  for (const [metric, label] of RATES) found.push({label, value: p => p[metric], text: p => rate(p[metric]), small: p => interval(p, metric)});
  found.push({label: "words", value: p => p.mean_words, text: p => rate(p.mean_words)}, {label: "images", value: p => p.images});
  return found;
}
const COLUMNS = columns();
function compare(a, b) {
  const absent = value => value === null || value === undefined || value === "";
  if (absent(a) || absent(b)) return absent(a) - absent(b);
  const sign = state.sort.falling ? -1 : 1;
  return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
}
function table() {
  const front = new Set(study.front);
  let rows = byId("front-only").checked ? points.filter(p => p.number === null || front.has(p.number)) : [...points];
  if (state.sort.column !== null) rows.sort((a, b) => compare(COLUMNS[state.sort.column].value(a), COLUMNS[state.sort.column].value(b)));
  const head = tag("tr");
  COLUMNS.forEach((column, index) => {
    const button = tag("button", {type: "button"}, ...breakable(column.label));
    button.addEventListener("click", () => {
      state.sort = {column: index, falling: state.sort.column === index && !state.sort.falling};
      table();
      byId("table").querySelectorAll("th button")[index].focus();
    });
    const sorted = state.sort.column === index ? (state.sort.falling ? "descending" : "ascending") : "none";
    head.append(tag("th", {scope: "col", "aria-sort": sorted}, button));
  });
  const body = tag("tbody");
  for (const point of rows) {
    const button = tag("button", {type: "button", "aria-label": `${name(point)}: show`, "aria-pressed": "false"}, point.number === null ? "baseline" : String(point.number));
    button.addEventListener("click", () => { select(point); byId("point-title").focus(); byId("point").scrollIntoView({block: "nearest"}); });
    const row = tag("tr", {"data-key": key(point)}, tag("td", {}, icon(point.drawn ? point.roles : []), button));
    for (const column of COLUMNS.slice(1)) {
      const value = column.value(point);
      const text = column.text ? column.text(point) : value === null || value === undefined ? "" : String(value);
      const small = column.small ? column.small(point) : "";
      row.append(tag("td", {}, text, ...(small ? [tag("small", {}, small)] : [])));
    }
    body.append(row);
  }
  byId("table").replaceChildren(tag("caption", {class: "unseen"}, "All trials with parameters and scores; the headings sort."), tag("thead", {}, head), body);
  showSelection();
}
byId("front-only").addEventListener("change", table);

/* Captions, unpacked on first use. */

let unpacking = null;
function captions() {
  unpacking = unpacking || unpack();
  return unpacking;
}
async function unpack() {
  const packed = byId("caption-data").textContent;
  if (!packed) return null;
  const bytes = Uint8Array.from(atob(packed), character => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const ORDERS = [
  ["change", "largest change", i => [i.change]],
  ["removed", "hallucinations removed", i => [i.hallucinated.before - i.hallucinated.after, i.change]],
  ["added", "hallucinations added", i => [i.hallucinated.after - i.hallucinated.before, i.change]],
  ["lost", "correct objects lost", i => [i.correct.before - i.correct.after, i.change]],
  ["image", "lowest image id", i => [-i.image]],
];
for (const [value, label] of ORDERS) byId("order").append(tag("option", {value}, label));

/* Categories a caption names, split by whether the image has them. */
function objects(data, text, truth) {
  const mentioned = new Set();
  if (text >= 0) for (let i = 2; i < data.spans[text].length; i += 3) mentioned.add(data.spans[text][i]);
  const correct = new Set([...mentioned].filter(category => truth.has(category)));
  const hallucinated = new Set([...mentioned].filter(category => !truth.has(category)));
  return {correct, hallucinated, missed: [...truth].filter(category => !mentioned.has(category))};
}
function marked(data, text, truth) {
  const paragraph = tag("p");
  const [caption, spans] = [data.texts[text], data.spans[text]];
  let at = 0;
  for (let i = 0; i < spans.length; i += 3) {
    const correct = truth.has(spans[i + 2]);
    paragraph.append(caption.slice(at, spans[i]),
      tag("mark", {class: correct ? "correct" : "hallucinated", title: `${data.categories[spans[i + 2]]}: ${correct ? "in the image" : "hallucinated"}`},
        caption.slice(spans[i], spans[i + 1]), ...(correct ? [] : [tag("span", {class: "unseen"}, " (hallucinated)")])));
    at = spans[i + 1];
  }
  paragraph.append(caption.slice(at));
  return paragraph;
}
function side(data, title, text, truth, found) {
  const cell = tag("div", {}, tag("h4", {}, title));
  if (text < 0) { cell.append(tag("p", {class: "notes"}, "not captioned yet")); return cell; }
  cell.append(marked(data, text, truth));
  if (found.missed.length) cell.append(tag("p", {class: "notes"}, `missed: ${found.missed.map(c => data.categories[c]).join(", ")}`));
  return cell;
}
function changes(data, point) {
  const before = data.captions.baseline || [], after = data.captions[key(point)];
  return data.images.map((image, index) => {
    const truth = new Set(data.truth[index]);
    const [first, second] = [before[index] ?? -1, after[index] ?? -1];
    const [a, b] = [objects(data, first, truth), objects(data, second, truth)];
    const difference = (s, t) => [...s].filter(c => !t.has(c)).length + [...t].filter(c => !s.has(c)).length;
    const both = first >= 0 && second >= 0;
    return {
      image, index, truth, first, second, a, b, both,
      change: both ? difference(a.hallucinated, b.hallucinated) + difference(a.correct, b.correct) : -1,
      hallucinated: {before: a.hallucinated.size, after: b.hallucinated.size},
      correct: {before: a.correct.size, after: b.correct.size},
    };
  });
}
async function listCaptions() {
  const point = state.selected, list = byId("caption-list"), facts = byId("captions-facts"), more = byId("more");
  const isBaseline = point.number === null;
  byId("captions-title").textContent = isBaseline ? "Captions: baseline" : `Captions: baseline beside ${name(point).replace(/^Trial/, "trial")}`;
  let data;
  try {
    data = await captions();
  } catch (error) {
    list.replaceChildren();
    more.hidden = true;
    facts.textContent = typeof DecompressionStream === "undefined"
      ? "This browser cannot unpack the captions (it has no DecompressionStream): open the page in Chrome or Edge 80, Firefox 113, Safari 16.4 or later."
      : `The captions in this page cannot be unpacked (${error.message}).`;
    return;
  }
  if (state.selected !== point) return;
  list.replaceChildren();
  more.hidden = true;
  byId("order-label").hidden = !data || !data.captions[key(point)];
  if (!data || !data.captions[key(point)]) {
    facts.textContent = data ? `Captions of ${name(point).replace(/^[BT]/, c => c.toLowerCase())} are not in this page${study.captions_note ? `: ${study.captions_note}` : "."}` : "This page was written without captions.";
    return;
  }
  const items = changes(data, point);
  const wanted = ORDERS.find(([value]) => value === byId("order").value)[2];
  const keys = new Map(items.map(item => [item, wanted(item)]));
  items.sort((s, t) => { const [u, v] = [keys.get(s), keys.get(t)]; for (let i = 0; i < u.length; i++) if (u[i] !== v[i]) return v[i] - u[i]; return s.index - t.index; });
  if (isBaseline) {
    facts.textContent = `${items.filter(i => i.second >= 0).length} captions, ${items.filter(i => i.hallucinated.after).length} with a hallucinated object.`;
  } else {
    const both = items.filter(i => i.both);
    facts.textContent = `Of ${both.length} images with both captions, ${both.filter(i => i.hallucinated.after < i.hallucinated.before).length} have fewer hallucinated objects than with the baseline, ` +
      `${both.filter(i => i.hallucinated.after > i.hallucinated.before).length} have more, ${both.filter(i => i.first === i.second).length} captions are unchanged.`;
  }
  const add = from => {
    for (const item of items.slice(from, state.shown)) {
      const about = tag("div", {}, tag("h3", {}, `image ${item.image}`));
      const thumbnail = data.thumbnails && data.thumbnails[item.index];
      if (thumbnail) about.append(tag("img", {src: `data:image/jpeg;base64,${thumbnail}`, alt: `image ${item.image}`, loading: "lazy"}));
      about.append(tag("p", {class: "notes"}, item.truth.size ? `has: ${[...item.truth].map(c => data.categories[c]).join(", ")}` : "has none of the 80 categories"));
      const cells = isBaseline ? [side(data, "baseline", item.second, item.truth, item.b)]
        : [side(data, "baseline", item.first, item.truth, item.a), side(data, `trial ${point.number}`, item.second, item.truth, item.b)];
      list.append(tag("li", {}, about, ...cells));
    }
    more.hidden = state.shown >= items.length;
    more.textContent = `Show ${Math.min(PAGE_LENGTH, items.length - state.shown)} more of ${items.length}`;
  };
  add(0);
  more.onclick = () => {
    const from = state.shown;
    state.shown += PAGE_LENGTH;
    add(from);
    const first = list.children[from].querySelector("h3");
    first.tabIndex = -1;
    first.focus({preventScroll: true});
  };
}
byId("order").addEventListener("change", () => { state.shown = PAGE_LENGTH; listCaptions(); });

/* Start. */

legend();
table();
draw();
const linked = byKey.get(location.hash.replace(/^#(trial-)?/, ""));
const first = linked || byKey.get(String(study.chosen.trial)) || byKey.get(String(study.front[0])) || points[0];
if (first) {
  select(first);
} else {
  byId("point-title").textContent = "No trials yet";
  byId("captions-facts").textContent = "No captions yet.";
  byId("order-label").hidden = true;
}
