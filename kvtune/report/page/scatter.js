/* The scatter: CHAIR_S across, F1 up. */

byId("intervals-label").hidden = !points.some(p => Object.keys(p.intervals).length);
byId("zoom-label").hidden = study.front.length < 2;
byId("held-out-label").hidden = !validated.size;
byId("how").hidden = !drawn.length;

const SHAPES = {
  chosen: "M0,-8 L2.2,-2.9 7.6,-2.5 3.5,1.1 4.7,6.5 0,3.6 -4.7,6.5 -3.5,1.1 -7.6,-2.5 -2.2,-2.9Z",
  baseline: "M-6,-6H6V6H-6Z",
  published: "M0,-7.5 L7,5.5H-7Z",
  front: "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0Z",
  complete: "M-3.5,0a3.5,3.5 0 1,0 7,0a3.5,3.5 0 1,0 -7,0Z",
  raced: "M-3,-3L3,3M3,-3L-3,3",
  overlay: "M0,-6.5L6.5,0 0,6.5 -6.5,0Z",
};
/* What is drawn over what, the topmost last. */
const ROLE_ORDER = ["overlay", "raced", "complete", "front", "published", "baseline", "chosen"];
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
  const width = Math.max(holder.clientWidth, 260), height = Math.round(Math.min(520, Math.max(280, width * 0.75)));
  const right = width - 12, top = 12, bottom = height - 44;
  if (!drawn.length) { holder.replaceChildren(tag("p", {}, "No trial is judged yet.")); return; }
  const faint = point => point.roles[0] === "complete" || point.roles[0] === "raced";
  let framed = drawn;
  if (byId("zoom").checked) framed = drawn.filter(p => !faint(p));
  const withBars = byId("intervals").checked;
  const moves = byId("held-out").checked ? [...validated.values()] : [];
  const bestCut = study.cut_baseline.length > 1 ? [study.cut_baseline.reduce((a, b) => b.f1 > a.f1 ? b : a)] : [];
  const ends = metric => bestCut.map(cut => cut[metric]).concat(moves.map(setting => setting.holdout.metrics[metric]))
    .concat(framed.flatMap(p => withBars && p.intervals[metric] && !faint(p) ? [p[metric], ...p.intervals[metric]] : [p[metric]]));
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
  if (study.cut_baseline.length > 1) inside.append(svg("path", {class: "cut-baseline", d: "M" + study.cut_staircase.map(([a, b]) => `${x(a)},${y(b)}`).join("L")}),
    ...study.cut_baseline.map(cut => svg("circle", {class: "cut", cx: x(cut.chair_s), cy: y(cut.f1), r: 1.5})));
  const layered = [...drawn].sort((a, b) => ROLE_ORDER.indexOf(a.roles[0]) - ROLE_ORDER.indexOf(b.roles[0]));
  if (withBars) for (const point of layered) {
    if (faint(point)) continue;
    const bars = svg("g", {class: `role-${point.roles[0]}`});
    const [across, up] = [point.intervals.chair_s, point.intervals.f1];
    if (across) bars.append(svg("line", {class: "interval", x1: x(across[0]), x2: x(across[1]), y1: y(point.f1), y2: y(point.f1)}));
    if (up) bars.append(svg("line", {class: "interval", x1: x(point.chair_s), x2: x(point.chair_s), y1: y(up[0]), y2: y(up[1])}));
    inside.append(bars);
  }
  for (const setting of moves) inside.append(move(setting, x, y));
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
/* A setting on held-out images, joined to its place on tune images. */
function move(setting, x, y) {
  const now = setting.holdout.metrics, before = setting.tune ? setting.tune.metrics : now;
  const point = byKey.get(setting.number !== null ? String(setting.number) : setting.roles[0]);
  const [atX, atY] = [x(now.chair_s), y(now.f1)];
  return svg("g", {class: `move role-${point ? point.roles[0] : "published"}`, "aria-hidden": "true"},
    svg("path", {d: `M${x(before.chair_s)},${y(before.f1)}L${atX},${atY}`}), svg("circle", {cx: atX, cy: atY, r: 3}));
}
function markOf(wanted) { return byId("plot").querySelector(`.mark[data-key="${wanted}"]`); }

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
  if (validated.size) byId("legend").append(tag("li", {id: "held-out-entry"}, svg("svg", {viewBox: "-9 -9 18 18", "aria-hidden": "true"}, svg("g", {class: "move role-front"}, svg("path", {d: "M-8,0H4"}), svg("circle", {cx: 4, cy: 0, r: 3}))), `on ${study.validation.subset.images} held-out images`));
  for (const kind of new Set(study.overlays.map(p => p.kind))) byId("legend").append(tag("li", {}, icon(["overlay"]), kind));
  const undrawn = points.filter(p => !p.drawn && p.number !== null);
  for (const wanted of ["running", "failed"]) {
    const count = undrawn.filter(p => p.state === wanted).length;
    if (count) byId("legend").append(tag("li", {}, `${count} ${wanted}, not drawn`));
  }
}

for (const switched of ["zoom", "intervals", "held-out"]) byId(switched).addEventListener("change", draw);
new ResizeObserver(draw).observe(byId("plot"));
