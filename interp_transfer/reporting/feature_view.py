"""Static views of a feature for notebooks: its card, and texts with their tokens coloured. Both work offline."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from interp_transfer.escape import visible
from interp_transfer.extras import require
from interp_transfer.features.cards import Example, FeatureCard
from interp_transfer.reporting.completions import readable
from interp_transfer.reporting.feature_page import window
from interp_transfer.reporting.render import render

SIDES = (("source", "42, 128, 201"), ("target", "221, 95, 30"))
"""Names of the two models, and their colours."""
WIDTH, HEIGHT, BASE = 320, 96, 18
"""Size of a histogram; ``BASE`` is the height of the labels below its bars."""


def tokens_view(what: FeatureCard | Example) -> Any:
    """Texts with their tokens coloured by a feature's activation, by circuitsvis: an ``IPython.display.HTML``.

    Args:
        what: an example, or a card, whose examples are shown one below the other on one scale.

    Raises:
        ValueError: for a card without examples, or without IPython.
    """
    examples = what.examples if isinstance(what, FeatureCard) else (what,)
    if not examples:
        raise ValueError(f"feature {getattr(what, 'index', '')} fires on none of the texts: there is nothing to show")
    most = max(max(example.activations, default=0.0) for example in examples)
    boxes, calls, library = [], [], ""
    for example in examples:
        box, library, call = _circuits(example, most)
        boxes.append(box)
        calls.append(call)
    script = f'<script crossorigin type="module">{library}\n' + "\n".join(calls) + "</script>"  # the library once for all
    return needed("IPython.display").HTML("\n".join([*boxes, script]))


def _circuits(example: Example, most: float) -> tuple[str, str, str]:
    """The output of circuitsvis for an example: the element, the library, and the call that draws in the element."""
    from circuitsvis.tokens import colored_tokens

    tokens = [html.escape(readable(token).replace("\n", "")) for token in example.tokens]  # circuitsvis reads tokens as HTML
    whole = colored_tokens(tokens, list(example.activations), min_value=0.0, max_value=most or 1.0).local_src
    box, rest = whole.split("<script", 1)
    script = rest.split(">", 1)[1].rsplit("</script>", 1)[0]
    marker = f'CircuitsVis.render(\n      "{box.split(chr(34))[1]}"'
    library, call = script.split(marker)
    return box.replace("/>", "></div>").strip(), library, marker + call


@dataclass(frozen=True, repr=False)
class FeatureView:
    """A feature's card as static HTML, with that of its twin in another model if there is one.

    Attributes:
        card: of the feature.
        twin: of the same feature in another model.
    """

    card: FeatureCard
    twin: FeatureCard | None = None

    def __repr__(self) -> str:
        twin = f", beside {self.twin.index} of {self.twin.model}" if self.twin else ""
        return visible(f"FeatureView({self.card.index} of {self.card.model}{twin})")

    def _repr_html_(self) -> str:
        cards = [self.card, *([self.twin] if self.twin else [])]
        sides = [_side(card, k) for k, card in enumerate(cards)]
        return render("feature_view.html.j2", sides=sides, completions=_completions(cards))


def feature_view(card: FeatureCard, target_card: FeatureCard | None = None) -> FeatureView:
    """One feature as a small piece of HTML that a notebook keeps: examples, histogram, logits, completions.

    Args:
        card: of the feature.
        target_card: of its twin in another model, shown beside it.
    """
    return FeatureView(card, target_card)


def histogram_svg(counts: Sequence[int], edges: Sequence[float], colour: str = "currentColor") -> Markup:
    """A histogram as inline SVG: bars from the first edge to the last, labelled with both edges and the largest count.

    Args:
        counts: one for each bar; all bars have the same width.
        edges: one more than counts.
        colour: of the bars, in CSS.

    Raises:
        ValueError: when there is not one edge more than counts, unless both are empty.
    """
    if len(edges) != len(counts) + 1 and (counts or edges):
        raise ValueError(f"{len(counts)} counts between {len(edges)} edges: give one edge more than counts")
    if not counts:
        return Markup()
    most, step, room = max(max(counts), 1), WIDTH / len(counts), HEIGHT - BASE
    bars = [
        (k * step + 0.5, room * (1 - count / most), max(step - 1, 1), room * count / most) for k, count in enumerate(counts)
    ]
    numbers = {"total": sum(counts), "most": most, "low": f"{edges[0]:.3g}", "high": f"{edges[-1]:.3g}"}
    return Markup(render("histogram.svg.j2", bars=bars, colour=colour, width=WIDTH, height=HEIGHT, **numbers))


def needed(module: str) -> Any:
    """Import a module that is needed in notebooks only."""
    return require(module, "notebooks", "a view in a notebook")


def _side(card: FeatureCard, k: int) -> dict[str, Any]:
    """The template's values of one card."""
    name, colour = SIDES[k]
    first, then = (card.others, card.examples) if k else (card.examples, card.others)  # a twin's: the source's texts first
    examples = (*first, *(e for e in then if e.text_index not in {x.text_index for x in first}))
    most = max((max(e.activations, default=0.0) for e in examples), default=0.0) or 1.0
    return {
        "name": card.model or name,
        "colour": colour,
        "card": card,
        "histogram": histogram_svg(*card.histogram, colour=f"rgb({colour})"),
        "ranked": [("Promotes", card.promoted), ("Suppresses", card.suppressed)] if card.promoted else [],
        "examples": [_example(example, most) for example in examples],
    }


def _example(example: Example, most: float) -> dict[str, Any]:
    first, last = window(example)
    tokens = zip(example.tokens[first:last], example.activations[first:last], strict=True)
    return {
        "text": example.text_index,
        "peak": example.activations[example.peak],
        "before": first > 0,
        "after": last < len(example.tokens),
        "tokens": [(token, value, 0.58 * max(0.0, min(1.0, value / most))) for token, value in tokens],
    }


def _completions(cards: Sequence[FeatureCard]) -> list[tuple[str, list[tuple[float, list[str | None]]]]]:
    """For each prompt and strength the completion of each card's model; None where there is none."""
    table: dict[str, dict[float, list[str | None]]] = {}
    for k, card in enumerate(cards):
        for strength, pairs in card.completions.items():
            for prompt, completion in pairs:
                table.setdefault(prompt, {}).setdefault(strength, [None] * len(cards))[k] = completion
    return [(prompt, sorted(rows.items())) for prompt, rows in table.items()]
