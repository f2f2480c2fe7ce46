"use strict";
// The list of features and their cards.
jobs.push(blocks.then((data) => {
const {columns, rows, texts, opening} = data.index;
const find = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
// Everything that a model wrote enters the page here, as a text node.
const fill = (node, attributes, inside) => {
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
  node.append(...inside.filter((part) => part !== null));
  return node;
};
const el = (tag, attributes = {}, ...inside) => fill(document.createElement(tag), attributes, inside);
const svg = (tag, attributes = {}, ...inside) => fill(document.createElementNS(SVG, tag), attributes, inside);
const digits = (x) => Number.isInteger(x) ? x : Math.abs(x) < 1e-3 ? x.toExponential(1) : +x.toPrecision(3);
const number = (x) => String(digits(x)).replace("-", "\u2212");
const share = (x) => (x === 0 ? "0%" : x < 1e-4 ? "<0.01%" : +(100 * x).toPrecision(3) + "%");
const say = (value) => value === null ? "\u2013" : typeof value === "number" ? number(value) : value;
const token = (text) =>
  el("code", {class: "token"}, text === "" ? "\u27e8part of a character\u27e9" : text.replaceAll("\n", ""));
const SIDES = ["source", "target"];

// The list.
const state = {sort: null, down: true, strength: 1, chosen: false};
const body = find("rows");
const byIndex = new Map();
const OWN = [(r) => r.index, (r) => r.fires, (r) => r.size, (r) => r.hints[0] ?? null];
const NAMES = columns.map(([name]) => name);
const TAKE = [...OWN, ...columns.slice(OWN.length).map((_, k) => (r) => r.facts[k])];
// A fact such as "0.97 [0.91, 0.99] n=60" is sorted by the number that it begins with.
const key = (value) => {
  if (typeof value !== "string") return value;
  const first = parseFloat(value.replace("\u2212", "-"));
  return Number.isNaN(first) ? value.toLowerCase() : first;
};
const numeric = TAKE.map((take) => rows.every((r) => typeof (key(take(r)) ?? 0) === "number"));
const heads = NAMES.map((name, k) => {
  const button = el("button", {type: "button", title: [columns[k][1], "sort by " + name].filter((part) => part).join("; ")}, name);
  const head = el("th", {scope: "col", class: (numeric[k] ? "num" : "") + (k < OWN.length ? "" : " fact")}, button);
  button.addEventListener("click", () => sortBy(k));
  return head;
});
find("heads").append(...heads);
find("sort").append(el("option", {value: -1}, "as listed"));
NAMES.forEach((name, k) => find("sort").append(el("option", {value: k}, name)));
const listed = [...rows];
const list = body.closest(".list");
find("columns").hidden = NAMES.length === OWN.length;
const showAll = (all) => find("columns").setAttribute("aria-pressed", list.classList.toggle("all", all));
find("columns").addEventListener("click", () => showAll());
for (const row of rows) {
  const link = el("a", {href: "#feature-" + row.index, "aria-label": "feature " + row.index}, String(row.index));
  row.node = el("tr", {}, el("th", {scope: "row", class: "num"}, link),
    el("td", {class: "num"}, share(row.fires)), el("td", {class: "num"}, number(row.size)),
    el("td", {class: "hints"}, ...(row.hints.length ? row.hints.map(token) : ["never fires"])),
    ...row.facts.map((value, k) => el("td", {class: numeric[k + OWN.length] ? "num fact" : "fact"}, say(value))));
  row.link = link;
  row.node.addEventListener("click", (event) => { if (!event.target.closest("a")) link.click(); });
  byIndex.set(row.index, row);
}
const visibleRows = () => rows.filter((row) => !row.node.hidden);
function sortBy(k, down) {
  state.down = down ?? (state.sort === k ? !state.down : numeric[k] && k !== 0);
  state.sort = k;
  if (k >= OWN.length) showAll(true);
  const sign = state.down ? -1 : 1;
  const value = (row) => key(TAKE[k](row));
  rows.sort((one, two) => {
    const [a, b] = [value(one), value(two)];
    if (a === null || b === null) return (a === null) - (b === null) || one.index - two.index;
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
    return sign * order || one.index - two.index;
  });
  mark();
  body.append(...rows.map((row) => row.node));
}
// The heads and the menu say how the list is sorted.
function mark() {
  const sign = state.down ? " \u25be" : " \u25b4";
  heads.forEach((head, at) => {
    head.ariaSort = at === state.sort ? (state.down ? "descending" : "ascending") : null;
    head.firstChild.textContent = NAMES[at] + (at === state.sort ? sign : "");
    find("sort").options[at + 1].textContent = NAMES[at] + (at === state.sort ? sign : "");
  });
  find("sort").value = state.sort ?? -1;
}
let everything = null;
// All that a card says; put together when it is first searched.
const wholeText = (row) => {
  everything ??= new Map();
  if (!everything.has(row.index)) {
    const card = data["card-" + row.index];
    const examples = [...card.pairs, ...card.more].flat().filter((e) => e !== null);
    const said = [...card.prompts, ...card.said.flat(2).filter((s) => s)];
    const facts = card.facts.map(([name, value]) => name + " " + say(value));
    const read_there = examples.map((e) => texts[e[0]].join(""));
    everything.set(row.index, [row.words, ...read_there, ...said, ...facts].join("\n").toLowerCase());
  }
  return everything.get(row.index);
};
function filter() {
  const wish = find("search").value.trim().toLowerCase();
  const whole = find("where").value === "everything";
  const least = (parseFloat(find("least").value) || 0) / 100;
  const twin = find("twin")?.checked, completions = find("completions")?.checked;
  const exact = /^#?\d+$/.test(wish) ? Number(wish.replace("#", "")) : null;
  for (const row of rows) {
    const hit = !wish || row.index === exact || (whole ? wholeText(row) : row.words).includes(wish) ||
      row.facts.some((value) => typeof value === "string" && value.toLowerCase().includes(wish));
    row.node.hidden = !(hit && row.fires >= least && (!twin || row.twin) && (!completions || row.completions));
  }
  const left = visibleRows().length;
  find("none").hidden = left > 0;
  find("count").textContent = left === rows.length ? `${left} features` : `${left} of ${rows.length} features`;
  steps();
}
let waiting = 0;
const soon = () => { clearTimeout(waiting); waiting = setTimeout(filter, 80); };
for (const id of ["search", "least"]) find(id).addEventListener("input", soon);
for (const id of ["where", "twin", "completions"]) find(id)?.addEventListener("change", filter);
find("sort").addEventListener("change", (event) => {
  const k = Number(event.target.value);
  if (k >= 0) return sortBy(k);
  state.sort = null;
  rows.splice(0, rows.length, ...listed);
  body.append(...rows.map((row) => row.node));
  return mark();
});
find("clear").addEventListener("click", () => {
  find("tools").reset();
  find("sort").value = state.sort ?? -1;
  filter();
  find("search").focus();
});
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
  event.preventDefault();
  find("search").focus();
});
find("tools").addEventListener("submit", (event) => { event.preventDefault(); filter(); visibleRows()[0]?.link.focus(); });
body.addEventListener("keydown", (event) => {
  const shown = visibleRows(), at = shown.findIndex((row) => row.link === document.activeElement);
  const to = {ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: shown.length - 1}[event.key];
  if (to === undefined || at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const row = shown[Math.max(0, Math.min(shown.length - 1, to))];
  row.link.focus();
  choose(row.index);
});
find("search").addEventListener("keydown", (event) => {
  if (event.key !== "ArrowDown") return;
  event.preventDefault();
  filter();
  visibleRows()[0]?.link.focus();
});

// The card.
const histogram = ([counts, edges], side) => {
  if (!counts.length) return null;
  const [width, height, base] = [320, 92, 18], most = Math.max(...counts), step = width / counts.length;
  const bars = counts.map((count, k) => {
    const tall = (height - base) * count / most;
    const about = svg("title", {}, `${number(edges[k])} to ${number(edges[k + 1])}: ${count}`);
    return svg("rect", {x: k * step + .5, y: height - base - tall, width: Math.max(1, step - 1), height: tall}, about);
  });
  const total = counts.reduce((a, b) => a + b, 0);
  const label = `Histogram of ${total} activations from ${number(edges[0])} to ${number(edges.at(-1))}`;
  return svg("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label}, ...bars,
    svg("line", {x1: 0, x2: width, y1: height - base + .5, y2: height - base + .5}),
    svg("text", {x: 0, y: height - 4}, number(edges[0])),
    svg("text", {x: width / 2, y: height - 4, "text-anchor": "middle"}, `activation (highest bar: ${most})`),
    svg("text", {x: width, y: height - 4, "text-anchor": "end"}, number(edges.at(-1))));
};
const ranked = (title, tokens) => el("div", {}, el("h4", {}, title), el("ol", {}, ...tokens.map(([text, logit]) =>
  el("li", {}, token(text), el("span", {}, (logit > 0 ? "+" : "") + number(logit))))));
const panel = (side, k) => el("section", {class: "side " + SIDES[k], "aria-label": SIDES[k]},
  el("h3", {}, `${side.model || SIDES[k]} \u00b7 feature ${side.index}`),
  side.site ? el("p", {class: "soft"}, el("code", {}, side.site)) : null,
  el("p", {}, side.never && side.fires === 0 ? "Fires on none of the texts." :
    `Fires on ${share(side.fires)} of tokens; mean activation there ${number(side.size)}, highest shown ${number(side.peak)}.`),
  histogram(side.histogram, k),
  side.promoted.length ? el("div", {class: "logits"},
    ranked("Promotes", side.promoted), ranked("Suppresses", side.suppressed)) : null);
const nameOf = (sides, k) => sides.length > 1 ? (sides[k].model || SIDES[k]) + ": " : "";
const reading = (example, k, sides) => {
  const box = el("div", {class: SIDES[k]}), side = sides[k], name = nameOf(sides, k);
  if (example === null) return fill(box, {}, [el("p", {class: "soft"}, name + "not measured on this text")]);
  const [text, before, after, peak, values, which] = example;
  const most = side.peak || 1;
  const spans = texts[text].map((piece, at) => {
    const span = el("span", {class: at === peak && values[at] > 0 ? "peak" : null}, piece);
    if (values[at] > 0) { span.style.setProperty("--a", Math.min(1, values[at] / most)); span.title = number(values[at]); }
    return span;
  });
  const top = values[peak];
  const about = name + (top > 0 ? `text ${which}, highest ${number(top)} at ` : `text ${which}, does not fire`);
  return fill(box, {}, [el("p", {class: "soft"}, about, top > 0 ? token(texts[text][peak]) : null),
    el("p", {class: "read"}, before ? "\u2026 " : null, ...spans, after ? " \u2026" : null)]);
};
const examples = (title, pairs, sides) => {
  if (!pairs.length) return [];
  const known = [...pairs[0].keys()].filter((k) => pairs.some((pair) => pair[k] !== null));
  const rows = pairs.map((pair) => el("div", {class: "example"}, ...known.map((k) => reading(pair[k], k, sides))));
  for (const row of rows) row.style.setProperty("--sides", known.length);
  return [el("h3", {}, title), ...rows];
};
function completions(card) {
  if (!card.steps.length) return [];
  const slider = el("input", {type: "range", id: "strength", min: 0, max: card.steps.length - 1, step: 1,
    "aria-label": "strength"});
  const output = el("output", {for: "strength"}), place = el("div");
  const said = (at) => {
    const step = card.steps[at];
    if (at === card.opening)
      return card.sides.map((side, k) => nameOf(card.sides, k) + number(step[k]) + " \u00d7 its size").join(", ") + " (as reported above)";
    return step[0] === 0 ? "0 (unsteered)" : `${number(step[0])} \u00d7 its size`;
  };
  const draw = () => {
    const at = Number(slider.value);
    output.textContent = said(at);
    slider.setAttribute("aria-valuetext", said(at));
    place.replaceChildren(...card.prompts.map((prompt, p) => el("div", {class: "example"},
      el("div", {class: "prompted", dir: "auto"}, prompt),
      ...card.sides.map((_, k) => {
        const text = card.said[k][at]?.[p] ?? null;
        const name = nameOf(card.sides, k);
        return el("div", {class: SIDES[k]}, name ? el("p", {class: "soft"}, name) : null,
          el("pre", {class: "answer", dir: "auto"}, text ?? "(not generated)"));
      }))));
  };
  // Keep the strength from one feature to the next where it can be had.
  const near = card.steps.map((step, k) => [Math.abs(step.at(-1) - state.strength), k]).sort((a, b) => a[0] - b[0])[0][1];
  slider.value = state.chosen || card.opening === null ? near : card.opening;
  slider.addEventListener("input", () => {
    state.strength = card.steps[Number(slider.value)].at(-1);
    state.chosen = true;
    draw();
  });
  draw();
  return [el("h3", {}, "Completions when the feature is added"),
    el("div", {class: "strength"}, el("span", {}, "strength"), slider, output), place];
}
let current = null;
const walk = (by) => {
  const shown = visibleRows(), at = shown.findIndex((row) => row.index === current);
  return shown[at < 0 ? 0 : at + by] ?? null;
};
const place = find("card");
const stepButtons = [[-1, "\u2039 previous"], [1, "next \u203a"]].map(([by, text]) => {
  const button = el("button", {type: "button"}, text);
  button.addEventListener("click", () => { const row = walk(by); if (row) choose(row.index); });
  return [by, button];
});
function steps() {
  for (const [by, button] of stepButtons) button.disabled = walk(by) === null;
}
function choose(index) {
  const row = byIndex.get(index);
  if (!row) return;
  byIndex.get(current)?.node.classList.remove("this");
  byIndex.get(current)?.link.removeAttribute("aria-current");
  current = index;
  row.node.classList.add("this");
  row.link.setAttribute("aria-current", "true");
  if (row.node.getClientRects().length) {
    const box = row.node.getBoundingClientRect(), frame = list.getBoundingClientRect();
    const top = frame.top + heads[0].offsetHeight;
    if (box.top < top) list.scrollTop -= top - box.top;
    else if (box.bottom > frame.bottom) list.scrollTop += box.bottom - frame.bottom;
  }
  history.replaceState(null, "", "#feature-" + index);
  const card = data["card-" + index];
  const both = card.sides.length > 1;
  place.style.setProperty("--sides", card.sides.length);
  const focused = stepButtons.map(([, button]) => button).find((button) => button === document.activeElement);
  place.replaceChildren(
    el("header", {}, el("h2", {id: "card-title", tabindex: -1}, `Feature ${index}`),
      ...stepButtons.map(([, button]) => button)),
    card.facts.length ? el("dl", {class: "facts"}, ...card.facts.map(([name, value]) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, say(value))))) : "",
    ...completions(card),
    el("div", {class: "sides"}, ...card.sides.map(panel)),
    ...examples(both ? "Where it fires most, and its twin on the same texts" : "Where it fires most", card.pairs, card.sides),
    ...examples("Other texts where the twin fires most", card.more, card.sides));
  steps();
  focused?.focus();
}
const follow = (focus) => {
  const asked = /^#feature-(\d+)$/.exec(location.hash);
  if (!asked) return false;
  choose(Number(asked[1]));
  if (focus) {
    find("card-title")?.focus({preventScroll: true});
    if (matchMedia("(max-width: 900px)").matches) place.scrollIntoView();
  }
  return true;
};
addEventListener("hashchange", () => follow(true));
body.addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (link && link.hash === location.hash) follow(true);
});
body.append(...rows.map((row) => row.node));
find("app").hidden = false;
filter();
if (!follow(false)) choose(opening ?? rows[0].index);
}));
