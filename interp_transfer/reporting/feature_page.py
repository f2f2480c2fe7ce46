"""The features of an SAE as one HTML page that opens offline: a list to search, sort and filter, and a card for each feature.

A card shows where a feature fires, how strongly, which tokens it promotes and what the model says when it is added; and the
same of its twin in another model, on the same texts. ``features.js`` puts all text on the page as text, never as HTML.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from interp_transfer.escape import visible
from interp_transfer.features.cards import Example, FeatureCard
from interp_transfer.reporting.completions import readable
from interp_transfer.reporting.render import render, write_page

FILE = "features.html"
WINDOW = 72
"""Number of tokens of an example that are shown, around its highest activation."""
OWN = ("feature", "fires", "size")
"""Columns that every list has; facts have other names."""

MEANINGS = {
    "feature": "number of the feature in its SAE",
    "fires on": "share of tokens on which it fires",
    "size": "mean activation where it fires",
    "peaks at": "tokens at which it is highest",
}
"""What the columns hold that every list has."""

Fact = str | int | float | bool | None


@dataclass(frozen=True)
class Opening:
    """The card that a page opens with.

    Attributes:
        feature: its number in the source.
        strengths: in units of the size of the source's card and of its twin's; both have completions at their own.
    """

    feature: int
    strengths: tuple[float, float]


def write_features(
    folder: Path,
    title: str,
    source: Sequence[FeatureCard],
    target: Mapping[int, FeatureCard] | None = None,
    facts: Mapping[int, Mapping[str, Any]] | None = None,
    notes: Sequence[str] = (),
    *,
    meanings: Mapping[str, str] | None = None,
    opening: Opening | None = None,
) -> Path:
    """Write ``features.html`` into a folder, made if it is missing.

    Args:
        folder: where the page is written.
        title: of the page.
        source: cards, in the order in which they are listed at first.
        target: the card of a feature's twin in another model, by the number of the source's feature. Its ``others`` are its
            activations on the source's texts (``feature_cards(..., also=shown_texts(source))``).
        facts: labelled values of each feature, by its number, such as ``{"difference": 0.03, "success": "0.97 n=60"}``. They
            become columns of the list, in the order in which they first occur.
        notes: sentences at the head of the page.
        meanings: what the facts are, by their labels; shown as tooltips and in a list.
        opening: the card that is shown first, and its strengths; the first one of the list at strength 1 unless given.

    Returns:
        The page's path. An older page is replaced at once.

    Raises:
        ValueError: for no cards, two cards of one feature, a twin, a fact or an opening of a feature without a card, or facts
            that are not plain values.
    """
    plain = _facts(source, facts or {})
    return write_page(page(title, source, target or {}, plain, notes, meanings or {}, opening), Path(folder) / FILE)


def page(
    title: str,
    source: Sequence[FeatureCard],
    target: Mapping[int, FeatureCard],
    facts: Mapping[int, Mapping[str, Fact]],
    notes: Sequence[str],
    meanings: Mapping[str, str],
    opening: Opening | None,
) -> str:
    """The whole page; see ``write_features``."""
    known = {card.index for card in source}
    if not source or len(known) < len(source):
        raise ValueError(f"{len(source)} cards of {len(known)} features: give at least one card, and one for each feature")
    if unknown := sorted(set(target) - known):
        raise ValueError(f"there is a twin of feature {unknown[0]}, which has no card: give the source's card as well")
    if opening is not None and opening.feature not in known:
        raise ValueError(f"the page opens at feature {opening.feature}, which has no card: give its card as well")
    columns = list(dict.fromkeys(name for each in facts.values() for name in each))
    texts = _Texts()
    trios = [(card, target.get(card.index), facts.get(card.index, {})) for card in source]
    cards = {f"card-{card.index}": _card(card, twin, fact, texts, opening) for card, twin, fact in trios}
    about = {**MEANINGS, **{name: meanings.get(name, "") for name in columns}}
    index = {
        "columns": [[readable(name), readable(meaning)] for name, meaning in about.items()],
        "rows": [_row(*trio, columns) for trio in trios],
        "texts": texts.pieces,
        "opening": None if opening is None else opening.feature,
    }
    twin = next(iter(target.values()), None)
    return render(
        "features.html.j2",
        scripts=["features.js"],
        blocks={"index": index, **cards},
        title=title,
        notes=notes,
        meanings={name: meaning for name, meaning in about.items() if meaning},
        about=_about(source[0], len(source)),
        about_twin=_about(twin, len(target)) if twin else "",
        completions=any(card.completions for card in (*source, *target.values())),
    )


def window(example: Example) -> tuple[int, int]:
    """The first token of an example that is shown, and the first one after it that is not."""
    n = len(example.tokens)
    first = max(0, min(example.peak - 2 * WINDOW // 3, n - WINDOW))
    return first, min(n, first + WINDOW)


def peak_tokens(card: FeatureCard) -> list[str]:
    """The token at which each example peaks, each text once, best first."""
    return list(dict.fromkeys(readable(example.tokens[example.peak]) for example in card.examples))


class _Texts:
    """The texts that cards show, in pieces, each stored once."""

    def __init__(self) -> None:
        self.pieces: list[list[str]] = []
        self._numbers: dict[tuple[str, ...], int] = {}

    def number(self, tokens: tuple[str, ...]) -> int:
        if tokens not in self._numbers:
            self._numbers[tokens] = len(self.pieces)
            self.pieces.append([readable(token) for token in tokens])
        return self._numbers[tokens]


def _facts(source: Sequence[FeatureCard], facts: Mapping[int, Mapping[str, Any]]) -> dict[int, dict[str, Fact]]:
    """The facts as plain values."""
    if unknown := sorted(set(facts) - {card.index for card in source}):
        raise ValueError(f"there are facts of feature {unknown[0]}, which has no card: leave them out, or give its card")
    return {int(index): {name: _fact(index, name, value) for name, value in row.items()} for index, row in facts.items()}


def _fact(index: int, name: str, value: Any) -> Fact:
    if name in OWN:
        raise ValueError(f"a fact of feature {index} is called {name!r}, as a column that every list has: choose another name")
    plain = value.item() if hasattr(value, "item") else value
    if plain is not None and not isinstance(plain, str | int | float | bool):
        raise ValueError(f"fact {name!r} of feature {index} is a {type(value).__name__}: give a string, a number or None")
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


def _row(card: FeatureCard, twin: FeatureCard | None, facts: Mapping[str, Fact], columns: Sequence[str]) -> dict[str, Any]:
    """A feature's row of the list, and the words by which it is found."""
    hints = peak_tokens(card)
    words = [*hints, *(readable(token) for token, _ in (*card.promoted, *card.suppressed))]
    for example in card.examples:
        top = example.activations[example.peak]
        pairs = zip(example.tokens, example.activations, strict=True)
        words += [readable(token) for token, value in pairs if top > 0 and value > top / 2]
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


def _card(
    card: FeatureCard, twin: FeatureCard | None, facts: Mapping[str, Fact], texts: _Texts, opening: Opening | None
) -> dict[str, Any]:
    """The data of a card."""
    sides = [card] if twin is None else [card, twin]
    prompts = list(dict.fromkeys(prompt for side in sides for said in side.completions.values() for prompt, _ in said))
    own = opening.strengths if opening is not None and opening.feature == card.index else ()
    shared = {strength for side, only in zip_longest(sides, own) if side for strength in side.completions if strength != only}
    steps = [(strength, strength) for strength in shared]
    steps = sorted([*steps, own] if own else steps, key=lambda step: step[-1])
    return {
        "facts": [[readable(name), _plain(value)] for name, value in facts.items() if value is not None],
        "sides": [_side(side) for side in sides],
        "pairs": _pairs(card, twin, texts),
        "more": _more(card, twin, texts),
        "prompts": [*map(readable, prompts)],
        "steps": steps,
        "opening": steps.index(own) if own else None,
        "said": [[_completions(side, step[k], prompts) for step in steps] for k, side in enumerate(sides)],
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
        "promoted": [[readable(token), _short(logit)] for token, logit in card.promoted],
        "suppressed": [[readable(token), _short(logit)] for token, logit in card.suppressed],
        "peak": _short(max((max(e.activations) for e in (*card.examples, *card.others) if e.activations), default=0.0)),
        "never": not card.examples,
    }


def _pairs(card: FeatureCard, twin: FeatureCard | None, texts: _Texts) -> list[list[Any]]:
    """Each of a card's examples with the twin's activations on the same text, None if they are not known."""
    if twin is None:
        return [[_example(example, texts)] for example in card.examples]
    same = {example.text_index: example for example in (*twin.others, *twin.examples)}
    return [[_example(one, texts), _example(same.get(one.text_index), texts)] for one in card.examples]


def _more(card: FeatureCard, twin: FeatureCard | None, texts: _Texts) -> list[list[Any]]:
    """The twin's further examples with the card's activations on the same text, None if they are not known."""
    if twin is None:
        return []
    seen = {example.text_index for example in card.examples}
    same = {example.text_index: example for example in card.others}
    further = [example for example in twin.examples if example.text_index not in seen]
    return [[_example(same.get(two.text_index), texts), _example(two, texts)] for two in further]


def _example(example: Example | None, texts: _Texts) -> list[Any] | None:
    """Number of the text, counts of tokens before and after the window, peak in the window, activations, index of the text."""
    if example is None:
        return None
    first, last = window(example)
    values = [_short(value) if value else 0 for value in example.activations[first:last]]
    number = texts.number(example.tokens[first:last])
    return [number, first, len(example.tokens) - last, example.peak - first, values, example.text_index]


def _completions(card: FeatureCard, strength: float, prompts: Sequence[str]) -> list[str | None] | None:
    if strength not in card.completions:
        return None
    by_prompt = dict(card.completions[strength])
    return [readable(by_prompt[prompt]) if prompt in by_prompt else None for prompt in prompts]


def _about(card: FeatureCard, n: int) -> str:
    model = f" of {card.model}" if card.model else ""
    return f"{n} features{model}" + (f" at {card.site}" if card.site else "")


def _plain(value: Fact) -> Fact:
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _short(value) if isinstance(value, float) else value


def _short(value: float) -> float | int:
    """A number rounded to three digits, as an int where that is shorter."""
    rounded = float(f"{value:.3g}") if math.isfinite(value) else 0.0
    return int(rounded) if rounded == int(rounded) else rounded
