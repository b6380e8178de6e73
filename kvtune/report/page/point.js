/* The selected point. */

/* Rates, a column for the tune images and one for the held-out ones. */
function scores(point) {
  const found = heldOut(point), columns = found ? [point, {...found.metrics, ...found}] : [point];
  const table = tag("table", {class: "scores"});
  if (found) table.append(tag("tr", {}, tag("td"), tag("th", {scope: "col"}, `${point.images} tune images`), tag("th", {scope: "col"}, `${found.metrics.images} held-out`)));
  const row = (label, cell) => table.append(tag("tr", {}, tag("th", {scope: "row"}, label), ...columns.map(column => tag("td", {}, ...cell(column)))));
  const small = text => text ? [" ", tag("small", {}, text)] : [];
  for (const [metric, label] of RATES) row(label, from => [rate(from[metric]), ...small(interval(from, metric))]);
  for (const [metric, label] of OBJECTIVES) {
    if (!columns.some(from => from.differences && from.differences[metric])) continue;
    row(`${label} − baseline`, from => {
      const difference = from.differences[metric];
      return difference ? [signed(difference.value), ...small(`${signed(difference.interval[0])} to ${signed(difference.interval[1])}, ${pValue(difference.p_adjusted)}`)] : ["–"];
    });
  }
  for (const [metric, label] of LENGTH) row(label, from => [rate(from[metric])]);
  return table;
}
function pValue(p) { return p < 0.001 ? "p\u00a0<\u00a00.001" : `p\u00a0${p.toFixed(3)}`; }
/* What there is to say of a point beside its rates. */
function remarks(point) {
  const found = [];
  if (point.intervals) found.push(`In small: 95 % intervals${point.differences ? ", unadjusted, and Holm-adjusted p-values" : ""}.`);
  if (point.source) found.push(`From: ${point.source}`);
  if (point.state === "raced") found.push(`Stopped after ${point.images} of ${study.subset.images} images, because trial ${point.raced_out_by} beats it in both beyond doubt; its rates are over these images alone.`);
  else if (point.images !== undefined && point.images !== study.subset.images) found.push(`${point.images} of ${study.subset.images} images so far.`);
  if (point.ties && point.ties.length) found.push(`Tied with ${point.ties.map(number => `trial ${number}`).join(", ")} (ringed): the paired intervals of both differences contain 0.`);
  if (point.below_floor && point.below_floor.length) found.push(`Below the study's floor: ${point.below_floor.join(", ")}.`);
  if (point.length && point.length.flag) found.push(`No better than a shorter caption: ${point.length.flag}.`);
  if (point.roles.includes("chosen")) found.push(`Chosen: ${study.chosen.reason}.`);
  return found;
}
/* The two objectives, for the tip. */
function summaryOf(point) {
  const list = tag("dl"), found = heldOut(point);
  for (const [metric, label] of OBJECTIVES) {
    list.append(tag("dt", {}, label), tag("dd", {}, rate(point[metric]), " ", tag("small", {}, interval(point, metric))));
    if (found) list.append(tag("dt", {}, `${label}, held-out`), tag("dd", {}, rate(found.metrics[metric]), " ", tag("small", {}, interval(found, metric))));
  }
  if (point.state === "raced") list.append(tag("dt", {}, "images"), tag("dd", {}, String(point.images)));
  return list;
}
function parameters(point, names) {
  const list = tag("dl");
  for (const wanted of names) if (wanted in point.params) list.append(tag("dt", {}, wanted), tag("dd", {}, parameter(point.params[wanted])));
  return list;
}

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
  for (const remark of remarks(point)) body.append(tag("p", {class: "notes"}, remark));
  if (typeof point.number === "number") {
    body.append(tag("h3", {}, "Parameters"), parameters(point, study.parameters.concat(study.shared_parameters)));
  }
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
    mark.classList.toggle("tied", Boolean(state.selected && state.selected.ties && state.selected.ties.map(String).includes(mark.dataset.key)));
    mark.setAttribute("aria-pressed", String(mark.dataset.key === wanted));
  }
  for (const shape of byId("parameters").querySelectorAll("[data-key]")) shape.classList.toggle("selected", shape.dataset.key === wanted);
  for (const row of byId("table").querySelectorAll("tbody tr")) {
    row.classList.toggle("selected", row.dataset.key === wanted);
    row.querySelector("button").setAttribute("aria-pressed", String(row.dataset.key === wanted));
  }
}
