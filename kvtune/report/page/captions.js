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
    const both = items.filter(i => i.both), unchanged = both.filter(i => i.first === i.second).length;
    facts.textContent = `Of ${both.length} images with both captions, ${both.filter(i => i.hallucinated.after < i.hallucinated.before).length} have fewer hallucinated objects than with the baseline, ` +
      `${both.filter(i => i.hallucinated.after > i.hallucinated.before).length} have more, ${unchanged === 1 ? "1 caption is" : `${unchanged} captions are`} unchanged.`;
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
