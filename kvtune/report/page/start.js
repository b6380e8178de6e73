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
