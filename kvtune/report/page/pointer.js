/* Hovering, clicking and walking over the points of the scatter. */

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

function tip(point, left, top) {
  const box = byId("tip");
  byId("plot").querySelectorAll(".near").forEach(mark => mark.classList.remove("near"));
  if (!point) { box.hidden = true; return; }
  markOf(key(point)).classList.add("near");
  box.replaceChildren(tag("p", {}, fullName(point)), parameters(point, study.parameters), summaryOf(point));
  const same = coinciding(point);
  if (same.length) box.append(tag("p", {}, `Same place: ${same.slice(0, 6).map(name).join(", ")}${same.length > 6 ? ", …" : ""}`));
  box.hidden = false;
  box.style.left = "0";  /* as wide as it wants to be, before it is measured */
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
