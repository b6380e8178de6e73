/* The table. */

function columns() {
  const found = [{label: "trial", value: p => p.number === null ? -1 : p.number}, {label: "what", value: roleText}];
  const asked = study.parameters.map(wanted => ({label: wanted, value: p => p.params[wanted], text: p => parameter(p.params[wanted])}));
  /* On a narrow screen the scores come first. */
  const narrow = matchMedia("(max-width: 820px)").matches;
  if (!narrow) found.push(...asked);
  for (const [metric, label] of RATES) found.push({label, value: p => p[metric], text: p => rate(p[metric]), small: p => interval(p, metric)});
  if (validated.size) for (const [metric, label] of OBJECTIVES) {
    found.push({label: `${label} held-out`, value: p => heldOut(p) && heldOut(p).metrics[metric], text: p => heldOut(p) ? rate(heldOut(p).metrics[metric]) : "", small: p => heldOut(p) ? interval(heldOut(p), metric) : ""});
  }
  for (const [metric, label] of LENGTH) found.push({label, value: p => p[metric], text: p => rate(p[metric])});
  if (new Set(points.map(p => p.images)).size > 1) found.push({label: "images", value: p => p.images});
  return narrow ? found.concat(asked) : found;
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
