/* Parameters and scores: all at once as parallel coordinates, and each parameter against each objective. */

const tried = drawn.filter(p => p.state === "complete" && p.number !== null)
  .sort((a, b) => ROLE_ORDER.indexOf(a.roles[0]) - ROLE_ORDER.indexOf(b.roles[0]));
const varied = study.parameters.filter(name => tried.some(p => typeof p.params[name] === "number"));
const parameterAxes = varied.map(name => ({label: name, of: p => p.params[name], text: parameter}));
const scoreAxes = OBJECTIVES.map(([name, label]) => ({label, of: p => p[name], text: rate}));
byId("parameters").hidden = byId("parameters-link").hidden = !varied.length || tried.length < 2;

function scale(axis, from, to) {
  const values = tried.map(axis.of).filter(Number.isFinite), low = Math.min(...values), high = Math.max(...values);
  const at = value => from + (high > low ? (value - low) / (high - low) : 0.5) * (to - from);
  return {low, high, at};
}
function label(x, y, anchor, text) { return svg("text", {x, y, "text-anchor": anchor, "aria-hidden": "true"}, text); }
/* A shape of a trial that says which it is and selects it. */
function selectable(point, shape) {
  shape.append(svg("title", {}, `${fullName(point)}: ${scoreAxes.map(axis => `${axis.label} ${rate(axis.of(point))}`).join(", ")}`));
  shape.addEventListener("click", () => select(point));
  return shape;
}
function drawParallel() {
  const holder = byId("parallel"), axes = parameterAxes.concat(scoreAxes);
  const width = Math.max(holder.clientWidth, 260), height = 250, top = 46, bottom = height - 22, side = 34;
  const picture = svg("svg", {viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": "Parallel coordinates: a line a trial, over its parameters and scores. The table of trials has the same data."});
  const scales = axes.map(axis => scale(axis, bottom, top)), x = index => side + index * (width - 2 * side) / (axes.length - 1);
  for (const point of tried) {
    const places = axes.map((axis, index) => Number.isFinite(axis.of(point)) ? `${x(index)},${scales[index].at(axis.of(point))}` : null);
    picture.append(selectable(point, svg("path", {class: `trial-line role-${point.roles[0]}`, "data-key": key(point), d: "M" + places.filter(Boolean).join("L")})));
  }
  axes.forEach((axis, index) => {
    picture.append(svg("path", {class: "axis", d: `M${x(index)},${top}V${bottom}`}),
      label(x(index), top - 6, "middle", axis.text(scales[index].high)), label(x(index), bottom + 15, "middle", axis.text(scales[index].low)));
    axis.label.split(/_(?=[a-z])/).forEach((part, line, parts) => picture.append(label(x(index), 12 + 12 * line, "middle", part + (line < parts.length - 1 ? "_" : ""))));
  });
  holder.replaceChildren(picture);
}
function drawAgainst() {
  const width = 240, height = 150, left = 40, right = width - 12, top = 10, bottom = height - 34;
  byId("against").replaceChildren(...parameterAxes.flatMap(across => scoreAxes.map(up => {
    const xs = scale(across, left + 6, right - 6), ys = scale(up, bottom - 6, top + 6);
    const picture = svg("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${up.label} over ${across.label}, a point a trial`},
      svg("path", {class: "axis", d: `M${left},${top}V${bottom}H${right}`}),
      label(left - 4, top + 10, "end", up.text(ys.high)), label(left - 4, bottom - 2, "end", up.text(ys.low)),
      label(left + 6, bottom + 14, "middle", across.text(xs.low)), label(right - 6, bottom + 14, "middle", across.text(xs.high)),
      label((left + right) / 2, height - 6, "middle", `${up.label} over ${across.label}`));
    for (const point of tried) {
      if (!Number.isFinite(across.of(point))) continue;
      const place = {cx: xs.at(across.of(point)), cy: ys.at(up.of(point)), r: 3.5};
      picture.append(selectable(point, svg("circle", {class: `trial-dot role-${point.roles[0]}`, "data-key": key(point), ...place})));
    }
    return picture;
  })));
}
function drawParameters() {
  if (byId("parameters").hidden) return;
  drawParallel();
  drawAgainst();
  showSelection();
}
new ResizeObserver(drawParameters).observe(byId("parallel"));
