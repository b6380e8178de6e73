"use strict";

/* The study and what all parts of the page use. */

const study = JSON.parse(document.getElementById("study-data").textContent);
const points = (study.baseline ? [study.baseline] : []).concat(study.trials);
const drawn = points.concat(study.overlays).filter(p => p.drawn).sort((a, b) => a.chair_s - b.chair_s || a.f1 - b.f1);
const byKey = new Map(points.concat(study.overlays).map(p => [key(p), p]));
/* Held-out results by the key of their point; those of a published preset that is no trial under "published". */
const validated = new Map((study.validation ? study.validation.settings : []).map(s => [s.number !== null ? String(s.number) : s.roles[0], s]));
/* Metrics as [name, label]: those in percent, those of the front, the others. */
const [RATES, OBJECTIVES, LENGTH] = [m => m.unit === "%", m => m.objective, m => m.unit !== "%"].map(wanted => study.metrics.filter(wanted).map(m => [m.name, m.label]));
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
function interval(found, metric) {
  const bounds = found.intervals[metric];
  return bounds ? `${rate(bounds[0])}–${rate(bounds[1])}` : "";
}
function heldOut(point) { return validated.has(key(point)) ? validated.get(key(point)).holdout : null; }
function roleText(point) {
  if (point.overlay !== undefined) return point.kind;
  const words = point.roles.filter(role => role !== "complete" && role !== "baseline").map(role => ROLE_NAMES[role]);
  if (point.below_floor.length) words.push("below floor");
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
for (const note of study.notes) byId("notes").append(tag("li", {}, note));
