"""The features of an SAE as one HTML page that opens offline: a list to search, sort and filter, and a card for each.

A card shows where a feature fires, how strongly, which tokens it promotes, what the model says when it is added; and beside it
its twin in another model, on the same texts. The page holds its data as JSON, a block for each card that is read when the card
is opened, and a small script of our own that puts it on the page as text, never as HTML.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from interp_transfer.features.cards import Example, FeatureCard
from interp_transfer.reporting.page import HEAD, json_block, render, visible, write_page

if TYPE_CHECKING:
    import pandas as pd

FILE = "features.html"
WINDOW = 72
"""Tokens of an example that are shown, around its highest activation."""
WITHOUT_SCRIPTS = 20
"""Features in the table for readers without scripts."""
OWN = ("feature", "fires", "size")
"""Columns that every list has; facts have other names."""

Fact = str | int | float | bool | None


def write_features(
    folder: Path,
    title: str,
    source: Sequence[FeatureCard],
    target: Mapping[int, FeatureCard] | None = None,
    facts: Mapping[int, Mapping[str, Any]] | None = None,
    notes: Sequence[str] = (),
    table: "pd.DataFrame | None" = None,
) -> Path:
    """Write ``features.html`` into a folder, made if it is missing.

    Args:
        folder: where.
        title: of the page.
        source: cards, in the order in which they are listed at first.
        target: the card of a feature's twin in another model, by the number of the source's feature; its ``others`` are what
            it holds on the source's texts (``feature_cards(..., also=shown_texts(source))``).
        facts: labelled values of each feature, by its number, such as ``{"difference": 0.03, "success": "0.97 n=60"}``. They
            become columns of the list, in the order in which they first occur.
        notes: sentences at the head of the page.
        table: facts as a frame, with a column (or index) ``feature``; of several rows of one feature the first.

    Returns:
        The page's path. An older page is replaced, all at once.

    Raises:
        ValueError: for no cards, a feature with two, a twin or a fact of a feature without one, or facts that are not plain.
    """
    return write_page(page(title, source, target or {}, _facts(source, facts or {}, table), notes), Path(folder) / FILE)


def page(
    title: str,
    source: Sequence[FeatureCard],
    target: Mapping[int, FeatureCard],
    facts: Mapping[int, Mapping[str, Fact]],
    notes: Sequence[str] = (),
) -> str:
    """The whole page; see ``write_features``."""
    known = {card.index for card in source}
    if not source or len(known) < len(source):
        raise ValueError(f"{len(source)} cards of {len(known)} features: give at least one card, and one for each feature")
    if strange := sorted(set(target) - known):
        raise ValueError(f"there is a twin of feature {strange[0]}, which has no card: give the source's card as well")
    columns = list(dict.fromkeys(name for each in facts.values() for name in each))
    texts = _Texts()
    blocks = [(card.index, _card(card, target.get(card.index), facts.get(card.index, {}), texts)) for card in source]
    index = {
        "columns": [*map(shown, columns)],
        "rows": [_row(card, target.get(card.index), facts.get(card.index, {}), columns) for card in source],
        "texts": texts.found,
    }
    twin = next(iter(target.values()), None)
    context = {
        "title": title,
        "notes": notes,
        "n": len(source),
        "about": _about(source[0], len(source)),
        "about_twin": _about(twin, len(target)) if twin else "",
        "some": [(card, _ranked(card.promoted), _marked(card)) for card in source[:WITHOUT_SCRIPTS]],
        "columns": columns,
        "facts": facts,
        "index": _block(index),
        "cards": [(number, _block(plain)) for number, plain in blocks],
        "twins": bool(target),
        "completions": any(card.completions for card in (*source, *target.values())),
        "own_css": Markup(CSS),
    }
    return render(context, [SCRIPT], _PAGE)


def shown(text: str) -> str:
    """A text in which line breaks and tabs can be seen as well."""
    return visible(text).replace("\n", "\u21b5\n").replace("\t", "\u21e5\t")


def window(example: Example, width: int = WINDOW) -> tuple[int, int]:
    """The tokens of an example that are shown: from the first to before the second."""
    n = len(example.tokens)
    first = max(0, min(example.peak - 2 * width // 3, n - width))
    return first, min(n, first + width)


def peak_tokens(card: FeatureCard) -> list[str]:
    """The token at which each example peaks, each text once, best first."""
    return list(dict.fromkeys(shown(example.tokens[example.peak]) for example in card.examples))


class _Texts:
    """The pieces of text that cards show, each kept once."""

    def __init__(self) -> None:
        self.found: list[list[str]] = []
        self.known: dict[tuple[str, ...], int] = {}

    def number(self, tokens: tuple[str, ...]) -> int:
        if tokens not in self.known:
            self.known[tokens] = len(self.found)
            self.found.append([shown(token) for token in tokens])
        return self.known[tokens]


def _facts(
    source: Sequence[FeatureCard], facts: Mapping[int, Mapping[str, Any]], table: "pd.DataFrame | None"
) -> dict[int, dict[str, Fact]]:
    """Facts of both kinds, checked."""
    found: dict[int, dict[str, Any]] = {}
    if table is not None:
        rows = table if "feature" in table.columns else table.rename_axis("feature").reset_index()
        for row in rows.to_dict("records"):
            found.setdefault(int(row["feature"]), {str(name): value for name, value in row.items() if name != "feature"})
        known = {card.index for card in source}
        found = {index: row for index, row in found.items() if index in known}  # a ranking may be longer than the page
    for index, row in facts.items():
        found.setdefault(int(index), {}).update(row)
    if strange := sorted(set(found) - {card.index for card in source}):
        raise ValueError(f"there are facts of feature {strange[0]}, which has no card: leave them out, or give its card")
    return {index: {name: _fact(index, name, value) for name, value in row.items()} for index, row in found.items()}


def _fact(index: int, name: str, value: Any) -> Fact:
    if name in OWN:
        raise ValueError(f"a fact of feature {index} is called {name!r}, as a column that every list has: choose another name")
    plain = value.item() if hasattr(value, "item") else value
    if plain is not None and not isinstance(plain, str | int | float | bool):
        raise ValueError(f"fact {name!r} of feature {index} is a {type(value).__name__}: give a string, a number or None")
    if isinstance(plain, float) and not math.isfinite(plain):
        return None
    return plain


def _row(card: FeatureCard, twin: FeatureCard | None, facts: Mapping[str, Fact], columns: Sequence[str]) -> dict[str, Any]:
    """What the list needs to know of a feature."""
    hints = peak_tokens(card)
    words = [*hints, *(shown(token) for token, _ in (*card.promoted, *card.suppressed))]
    for example in card.examples:
        top = example.activations[example.peak]
        words += [
            shown(token)
            for token, value in zip(example.tokens, example.activations, strict=True)
            if top > 0 and value > top / 2
        ]
    return {
        "index": card.index,
        "hints": hints[:3],
        "fires": _short(card.density),
        "size": _short(card.size),
        "twin": twin is not None,
        "completions": bool(card.completions or (twin and twin.completions)),
        "words": " ".join(dict.fromkeys(word.strip().lower() for word in words)),
        "facts": [_plain(facts.get(name)) for name in columns],
    }


def _card(card: FeatureCard, twin: FeatureCard | None, facts: Mapping[str, Fact], texts: _Texts) -> dict[str, Any]:
    """What a card shows."""
    sides = [card] if twin is None else [card, twin]
    prompts = list(dict.fromkeys(prompt for side in sides for said in side.completions.values() for prompt, _ in said))
    strengths = sorted({strength for side in sides for strength in side.completions})
    return {
        "facts": [[shown(name), _plain(value)] for name, value in facts.items() if value is not None],
        "sides": [_side(side) for side in sides],
        "pairs": _pairs(card, twin, texts),
        "more": _more(card, twin, texts),
        "prompts": [*map(shown, prompts)],
        "strengths": strengths,
        "said": [[_said(side, strength, prompts) for strength in strengths] for side in sides],
    }


def _side(card: FeatureCard) -> dict[str, Any]:
    counts, edges = card.histogram
    return {
        "index": card.index,
        "model": visible(card.model),
        "site": visible(card.site),
        "fires": _short(card.density),
        "size": _short(card.size),
        "histogram": [list(counts), [_short(edge) for edge in edges]],
        "promoted": _ranked(card.promoted),
        "suppressed": _ranked(card.suppressed),
        "peak": _short(max((max(e.activations) for e in (*card.examples, *card.others) if e.activations), default=0.0)),
        "never": not card.examples,
    }


def _pairs(card: FeatureCard, twin: FeatureCard | None, texts: _Texts) -> list[list[Any]]:
    """Each of a card's examples beside the same text as the twin reads it, if that is known."""
    if twin is None:
        return [[_example(example, texts)] for example in card.examples]
    same = {example.text_index: example for example in (*twin.others, *twin.examples)}
    other = [same.get(example.text_index) for example in card.examples]
    pairs = zip(card.examples, other, strict=True)
    return [[_example(one, texts), None if two is None else _example(two, texts)] for one, two in pairs]


def _more(card: FeatureCard, twin: FeatureCard | None, texts: _Texts) -> list[list[Any]]:
    """The twin's own examples that are not among the card's, beside the same text as the card reads it, if that is known."""
    if twin is None:
        return []
    seen = {example.text_index for example in card.examples}
    same = {example.text_index: example for example in card.others}
    rest = [example for example in twin.examples if example.text_index not in seen]
    return [[None if (one := same.get(two.text_index)) is None else _example(one, texts), _example(two, texts)] for two in rest]


def _example(example: Example, texts: _Texts) -> list[Any]:
    """Number of the text, how many tokens come before and after what is shown, its peak there, the activations."""
    first, last = window(example)
    values = [_short(value) if value else 0 for value in example.activations[first:last]]
    number = texts.number(example.tokens[first:last])
    return [number, first, len(example.tokens) - last, example.peak - first, values, example.text_index]


def _said(card: FeatureCard, strength: float, prompts: Sequence[str]) -> list[str | None] | None:
    if strength not in card.completions:
        return None
    said = dict(card.completions[strength])
    return [shown(said[prompt]) if prompt in said else None for prompt in prompts]


def _ranked(tokens: Sequence[tuple[str, float]]) -> list[list[Any]]:
    return [[shown(token), _short(logit)] for token, logit in tokens]


def _marked(card: FeatureCard) -> list[tuple[str, bool]]:
    """The best example's tokens, and whether it fires there with at least half of its peak."""
    if not card.examples:
        return []
    best = card.examples[0]
    first, last = window(best)
    half = best.activations[best.peak] / 2
    return [(shown(best.tokens[k]), best.activations[k] >= half) for k in range(first, last)]


def _about(card: FeatureCard, n: int) -> str:
    where = f" of {card.model}" if card.model else ""
    return f"{n} features{where}" + (f" at {card.site}" if card.site else "")


def _plain(value: Fact) -> Fact:
    if isinstance(value, str):
        return shown(value)
    return _short(value) if isinstance(value, float) else ("yes" if value else "no") if isinstance(value, bool) else value


def _short(value: float) -> float | int:
    """Three digits of a number, and no more characters than it takes to write them."""
    rounded = float(f"{value:.3g}") if math.isfinite(value) else 0.0
    return int(rounded) if rounded == int(rounded) else rounded


def _block(plain: Any) -> Markup:
    return json_block(json.dumps(plain, ensure_ascii=False, separators=(",", ":")))


CSS = """
:root { --source: #2a80c9; --target: #dd5f1e; }
body > .wide { max-width: 1640px; } header.wide { padding-top: 26px; } header.wide p { max-width: 80em; margin: .3em 0; }
header.wide h1 { max-width: none; margin: .3em 0; }
.app { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 8fr); gap: 22px; align-items: start;
  padding-block: 18px 30px; }
.app[hidden], .app [hidden] { display: none !important; }
.browse { position: sticky; top: 10px; display: flex; flex-direction: column; max-height: calc(100vh - 20px);
  min-height: 320px; }
.tools { display: flex; flex-wrap: wrap; gap: 8px 14px; align-items: end; font-size: .875rem; }
.tools label { display: flex; flex-direction: column; gap: 2px; color: var(--soft); } .tools .wish { flex: 1 1 11em; }
.tools .tick { flex-direction: row; align-items: center; gap: 6px; color: var(--ink); padding-bottom: 7px; }
.tools input, .tools select { min-height: 36px; } .tools input[type=checkbox] { min-height: 0; }
.tools input[type=number] { width: 6.5em; }
input, select, button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--rule);
  border-radius: 6px; padding: 5px 9px; }
input[type=checkbox] { width: 1.1em; height: 1.1em; margin: 0; accent-color: var(--link); }
button { cursor: pointer; } button:hover { border-color: var(--link); } button:disabled { opacity: .45; cursor: default; }
.count { margin: 8px 0 6px; font-size: .8125rem; color: var(--soft); }
.list { overflow: auto; flex: 1; border: 1px solid var(--rule); border-radius: 8px; background: var(--card); }
.list table { font-size: .875rem; } .list th, .list td { padding: 5px 10px; } .list thead th { position: sticky; top: 0;
  z-index: 1; background: var(--card); padding: 2px 4px; box-shadow: 0 1px 0 var(--rule); }
.list thead button { border: 0; background: none; padding: 4px 6px; font-weight: 600; white-space: nowrap; }
.list thead .num button { text-align: right; } .list tbody th { white-space: nowrap;
  position: sticky; left: 0; background: var(--card); } .list td.hints { min-width: 9em; }
.list a { display: inline-block; padding: 1px 3px; } .list tr.this, .list tr.this th { background: var(--mark); }
.list td.fact { white-space: nowrap; }
.card { min-width: 0; padding: 0; }
.card > header { padding: 0; display: flex; flex-wrap: wrap; gap: 8px 14px; align-items: center; }
.card h2 { margin: 0; flex: 1 1 auto; } .card h2:focus { outline: none; } .card h3 { margin: 1.5em 0 .4em; }
.token { font-family: var(--mono); font-size: .8125rem; white-space: pre-wrap; unicode-bidi: isolate; overflow-wrap: anywhere;
  border: 1px solid var(--rule); border-radius: 4px; padding: 0 .3em; margin-right: .35em;
  display: inline-block; max-width: 100%; }
.facts { display: flex; flex-wrap: wrap; gap: 6px 26px; margin: 12px 0 0; max-width: none; } .facts div { min-width: 0; }
.facts dt { font-size: .8125rem; font-weight: 400; color: var(--soft); } .facts dd { margin: 0; font-weight: 600; }
.sides { display: grid; grid-template-columns: repeat(var(--sides, 1), minmax(0, 1fr)); gap: 14px; margin-top: 14px; }
.side { background: var(--card); border: 1px solid var(--rule); border-top: 3px solid var(--hue); border-radius: 8px;
  padding: 12px 16px; min-width: 0; } .side h3 { margin: 0; overflow-wrap: anywhere; }
  .side p { margin: .2em 0; font-size: .875rem; }
.source { --hue: var(--source); } .target { --hue: var(--target); }
.side svg { width: 100%; max-width: 420px; height: auto; margin-top: 10px; display: block; } .side rect { fill: var(--hue); }
.side svg text { fill: var(--soft); font: 11px var(--sans); } .side svg line { stroke: var(--rule); }
.logits { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(150px, 100%), 1fr)); gap: 4px 18px;
  margin-top: 10px; }
.logits h4 { margin: .3em 0; font-size: .8125rem; color: var(--soft); } .logits ol { list-style: none; margin: 0; padding: 0;
  font-size: .8125rem; } .logits li { display: flex; justify-content: space-between; gap: 8px; padding: 1px 0; }
.logits .token { margin: 0; min-width: 0; } .logits li span:last-child { font-variant-numeric: tabular-nums; }
.example { border-top: 1px solid var(--rule); padding: 10px 0; display: grid; gap: 4px 18px;
  grid-template-columns: repeat(var(--sides, 1), minmax(0, 1fr)); break-inside: avoid; }
.example p { margin: 0; } .example .soft { font-size: .8125rem; }
.read { line-height: 1.85; white-space: pre-wrap; overflow-wrap: anywhere; }
.read span { unicode-bidi: isolate; border-radius: 3px; padding: 1px 0;
  background: color-mix(in srgb, var(--hue) calc(var(--a, 0) * 58%), transparent);
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.read .peak { outline: 1.5px solid var(--hue); outline-offset: 0; font-weight: 600; }
.strength { display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: center; margin-bottom: 10px; }
.strength input { flex: 1 1 200px; max-width: 420px; padding: 0; accent-color: var(--link); }
.strength output { font-weight: 600; min-width: 9em; }
.answer { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext; font-family: var(--mono);
  font-size: .84375rem; border-left: 3px solid var(--hue); padding-left: 10px; }
.prompted { font-family: var(--mono); font-size: .84375rem; white-space: pre-wrap; grid-column: 1 / -1; color: var(--soft);
  unicode-bidi: plaintext; overflow-wrap: anywhere; }
.plain-table td:last-child { min-width: 14em; } .plain-table mark, .plain-table span { unicode-bidi: isolate; }
@media (max-width: 900px) { .app { grid-template-columns: minmax(0, 1fr); } .browse { position: static; max-height: none; }
  .list { max-height: 46vh; } }
@media (max-width: 620px) { .sides, .example { grid-template-columns: minmax(0, 1fr); }
  .list .scroll th:first-child { min-width: 0; } }
@media print { .browse, .card > header button, .strength input { display: none; } .app { display: block; }
  .side { break-inside: avoid; } }
"""

SCRIPT = r"""
"use strict";
(() => {
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const {columns, rows, texts} = read("index");
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
const state = {sort: null, down: true, strength: 1};
const body = find("rows");
const byIndex = new Map();
const NAMES = ["feature", "fires on", "size", "peaks at", ...columns];
const TAKE = [(r) => r.index, (r) => r.fires, (r) => r.size, (r) => r.hints[0] ?? null,
  ...columns.map((_, k) => (r) => r.facts[k])];
// A fact such as "0.97 [0.91, 0.99] n=60" is sorted by the number that it begins with.
const key = (value) => {
  if (typeof value !== "string") return value;
  const first = parseFloat(value.replace("\u2212", "-"));
  return Number.isNaN(first) ? value.toLowerCase() : first;
};
const numeric = TAKE.map((take) => rows.every((r) => typeof (key(take(r)) ?? 0) === "number"));
const heads = NAMES.map((name, k) => {
  const button = el("button", {type: "button", title: "sort by " + name}, name);
  const head = el("th", {scope: "col", class: numeric[k] ? "num" : ""}, button);
  button.addEventListener("click", () => sortBy(k));
  return head;
});
find("heads").append(...heads);
NAMES.forEach((name, k) => find("sort").append(el("option", {value: k}, name)));
for (const row of rows) {
  const link = el("a", {href: "#feature-" + row.index, "aria-label": "feature " + row.index}, String(row.index));
  row.node = el("tr", {}, el("th", {scope: "row", class: "num"}, link),
    el("td", {class: "num"}, share(row.fires)), el("td", {class: "num"}, number(row.size)),
    el("td", {class: "hints"}, ...(row.hints.length ? row.hints.map(token) : ["never fires"])),
    ...row.facts.map((value, k) => el("td", {class: numeric[k + 4] ? "num fact" : "fact"}, say(value))));
  row.link = link;
  row.node.addEventListener("click", (event) => { if (!event.target.closest("a")) link.click(); });
  byIndex.set(row.index, row);
}
const visibleRows = () => rows.filter((row) => !row.node.hidden);
function sortBy(k, down) {
  state.down = down ?? (state.sort === k ? !state.down : numeric[k] && k !== 0);
  state.sort = k;
  const sign = state.down ? -1 : 1;
  const value = (row) => key(TAKE[k](row));
  rows.sort((one, two) => {
    const [a, b] = [value(one), value(two)];
    if (a === null || b === null) return (a === null) - (b === null) || one.index - two.index;
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
    return sign * order || one.index - two.index;
  });
  heads.forEach((head, at) => {
    head.ariaSort = at === k ? (state.down ? "descending" : "ascending") : null;
    head.firstChild.textContent = NAMES[at] + (at === k ? (state.down ? " \u25be" : " \u25b4") : "");
  });
  find("sort").value = k;
  body.append(...rows.map((row) => row.node));
}
let everything = null;
// All that a card says; put together when it is first searched.
const wholeText = (row) => {
  everything ??= new Map();
  if (!everything.has(row.index)) {
    const card = read("card-" + row.index);
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
  find("count").textContent = left === rows.length ? `${left} features` : `${left} of ${rows.length} features`;
  steps();
}
let waiting = 0;
const soon = () => { clearTimeout(waiting); waiting = setTimeout(filter, 80); };
for (const id of ["search", "least"]) find(id).addEventListener("input", soon);
for (const id of ["where", "twin", "completions"]) find(id)?.addEventListener("change", filter);
find("sort").addEventListener("change", (event) => sortBy(Number(event.target.value)));
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
  if (example === null) return fill(box, {}, [el("p", {class: "soft"}, name + "not read on this text")]);
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
  if (!card.strengths.length) return [];
  const slider = el("input", {type: "range", id: "strength", min: 0, max: card.strengths.length - 1, step: 1,
    "aria-label": "strength"});
  const output = el("output", {for: "strength"}), place = el("div");
  const draw = () => {
    const at = Number(slider.value), strength = card.strengths[at];
    const told = strength === 0 ? "0 (unsteered)" : `${number(strength)} \u00d7 its size`;
    output.textContent = told;
    slider.setAttribute("aria-valuetext", told);
    place.replaceChildren(...card.prompts.map((prompt, p) => el("div", {class: "example"},
      el("div", {class: "prompted", dir: "auto"}, prompt),
      ...card.sides.map((_, k) => {
        const said = card.said[k][at]?.[p] ?? null;
        const name = nameOf(card.sides, k);
        return el("div", {class: SIDES[k]}, name ? el("p", {class: "soft"}, name) : null,
          el("pre", {class: "answer", dir: "auto"}, said ?? "(not generated)"));
      }))));
  };
  // Keep the strength from one feature to the next where it can be had.
  const near = card.strengths.map((s, k) => [Math.abs(s - state.strength), k]).sort((a, b) => a[0] - b[0])[0][1];
  slider.value = near;
  slider.addEventListener("input", () => { state.strength = card.strengths[Number(slider.value)]; draw(); });
  draw();
  return [el("h3", {}, "What the model says when it is added"),
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
    const list = body.closest(".list"), box = row.node.getBoundingClientRect(), frame = list.getBoundingClientRect();
    const top = frame.top + heads[0].offsetHeight;
    if (box.top < top) list.scrollTop -= top - box.top;
    else if (box.bottom > frame.bottom) list.scrollTop += box.bottom - frame.bottom;
  }
  history.replaceState(null, "", "#feature-" + index);
  const card = read("card-" + index);
  const both = card.sides.length > 1;
  place.style.setProperty("--sides", card.sides.length);
  const focused = stepButtons.map(([, button]) => button).find((button) => button === document.activeElement);
  place.replaceChildren(
    el("header", {}, el("h2", {id: "card-title", tabindex: -1}, `Feature ${index}`),
      ...stepButtons.map(([, button]) => button)),
    card.facts.length ? el("dl", {class: "facts"}, ...card.facts.map(([name, value]) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, say(value))))) : "",
    el("div", {class: "sides"}, ...card.sides.map(panel)),
    ...examples(both ? "Where it fires most, and its twin on the same texts" : "Where it fires most", card.pairs, card.sides),
    ...examples("Where the twin fires most besides", card.more, card.sides),
    ...completions(card));
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
if (!follow(false)) choose(rows[0].index);
})();
"""

_PAGE = (
    HEAD.replace("<style>{{ css }}</style>", "<style>{{ css }}{{ own_css }}</style>")
    + """<header class="wide">
<p class="eyebrow">interp_transfer &middot; {{ about }}{% if twins %} &middot; beside {{ about_twin }}{% endif %}</p>
<h1>{% for word in title.split() %}<span>{{ word }}</span> {% endfor %}</h1>
{% for note in notes %}<p>{{ note }}</p>
{% endfor %}
</header>
<main id="main" class="wide">
<noscript>
<p>Searching, sorting and the cards need scripts. These are the first {{ some | length }} of {{ n }} features.</p>
<div class="scroll" tabindex="0" role="region" aria-label="The first features"><table class="plain-table">
<caption>Tokens at which a feature fires with at least half of its peak are marked.</caption>
<thead><tr><th scope="col">feature</th><th scope="col" class="num">fires on</th><th scope="col" class="num">size</th>
{% for name in columns %}<th scope="col">{{ name }}</th>{% endfor %}
<th scope="col">fires most in</th><th scope="col">promotes</th></tr></thead><tbody>
{% for card, promoted, marked in some %}
<tr><th scope="row">{{ card.index }}</th><td class="num">{{ card.density | percent }}</td>
<td class="num">{{ card.size | short }}</td>
{% for name in columns %}<td>{% set fact = facts.get(card.index, {}).get(name) %}
{% if fact is none %}&ndash;{% elif fact is float %}{{ fact | short }}{% else %}{{ fact }}{% endif %}</td>{% endfor %}
<td>{% for piece, here in marked %}{% if here %}<mark>{{ piece }}</mark>{% else %}<span>{{ piece }}</span>{% endif %}
{%- else %}never fires{% endfor %}</td>
<td>{% for token, logit in promoted %}<code class="token">{{ token | replace("\n", "") }}</code>{% endfor %}</td></tr>
{% endfor %}
</tbody></table></div>
</noscript>
<div class="app" id="app" hidden>
<div class="browse">
<form class="tools" id="tools" role="search">
<label class="wish">Search <input type="search" id="search" placeholder="a token, a word or a number" autocomplete="off"
  spellcheck="false"></label>
<label>in <select id="where"><option value="tokens">tokens it fires on or moves</option>
<option value="everything">whole texts and completions</option></select></label>
<label>Sort by <select id="sort"></select></label>
<label>Fires on at least <span><input type="number" id="least" min="0" max="100" step="any" value="0"> %</span></label>
{% if twins %}<label class="tick"><input type="checkbox" id="twin"> has a moved twin</label>{% endif %}
{% if completions %}<label class="tick"><input type="checkbox" id="completions"> has completions</label>{% endif %}
</form>
<p class="count" id="count" role="status"></p>
<div class="list" tabindex="-1"><table aria-label="Features; arrow keys move from one to the next">
<thead><tr id="heads"></tr></thead>
<tbody id="rows"></tbody></table></div>
</div>
<section class="card" id="card" aria-label="The chosen feature" aria-live="off"></section>
</div>
</main>
<footer class="wide"><p>Promoted and suppressed tokens: the direct effect on the logits of adding the feature at its size,
through the final norm&rsquo;s gain and the unembedding; the norm&rsquo;s division and all later blocks are left out. Size: mean
activation where it fires. Strengths are in units of it. One file, no network: open it anywhere.</p></footer>
<script type="application/json" id="index">{{ index }}</script>
{% for number, block in cards %}<script type="application/json" id="card-{{ number }}">{{ block }}</script>
{% endfor %}
{% for script in scripts %}<script>{{ script }}</script>{% endfor %}
</body>
</html>
"""
)
