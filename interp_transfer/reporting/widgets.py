"""Features in a notebook: a text with its tokens coloured, a feature's card, and a widget to steer with a feature by hand.

Everything works offline. What a notebook keeps is a static picture, so that it can be read where no kernel runs: the live
widget covers the picture while it is there (its style sheet hides it) and leaves it behind when it is not. A notebook that is
run in batch, with nobody there to move a slider, shows the picture alone.
"""

import html
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import uuid4

from markupsafe import Markup

from interp_transfer.activations.positions import KEYWORDS
from interp_transfer.features.cards import STRENGTHS, Example, FeatureCard, with_completions
from interp_transfer.features.sae import Sae
from interp_transfer.interventions.generation import generate
from interp_transfer.interventions.intervention import add
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.plots.histogram import histogram_svg
from interp_transfer.reporting.feature_page import peak_tokens, shown, window
from interp_transfer.reporting.page import render, visible

SIDES = (("source", "42, 128, 201"), ("target", "221, 95, 30"))
"""Which model, and its colour."""
VIEW = "application/vnd.jupyter.widget-view+json"
MAX_NEW_TOKENS = 40

Moved = tuple[Sae, HookedModel, Sequence[FeatureCard] | Mapping[int, FeatureCard] | None]


def tokens_view(what: FeatureCard | Example) -> Any:
    """Texts with their tokens coloured by a feature's activation, by circuitsvis: an ``IPython.display.HTML``.

    Args:
        what: an example, or a card, whose examples are shown one below the other in one scale.

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
    script = f'<script crossorigin type="module">{library}\n' + "\n".join(calls) + "</script>"  # one copy for all
    return _needed("IPython.display").HTML("\n".join([*boxes, script]))


def _circuits(example: Example, most: float) -> tuple[str, str, str]:
    """What circuitsvis makes of an example: the element, the library, and the call that draws in the element."""
    from circuitsvis.tokens import colored_tokens

    tokens = [html.escape(shown(token).replace("\n", "")) for token in example.tokens]  # it reads tokens as HTML
    whole = colored_tokens(tokens, list(example.activations), min_value=0.0, max_value=most or 1.0).local_src
    box, rest = whole.split("<script", 1)
    script = rest.split(">", 1)[1].rsplit("</script>", 1)[0]
    marker = f'CircuitsVis.render(\n      "{box.split(chr(34))[1]}"'
    library, call = script.split(marker)
    return box.replace("/>", "></div>").strip(), library, marker + call


@dataclass(frozen=True, repr=False)
class FeatureView:
    """A feature's card for a notebook, static; beside it its twin in another model, if there is one.

    Attributes:
        card: of the feature.
        twin: of the same feature in another model.
    """

    card: FeatureCard
    twin: FeatureCard | None = None

    def __repr__(self) -> str:
        beside = f", beside {self.twin.index} of {self.twin.model}" if self.twin else ""
        return f"FeatureView({self.card.index} of {self.card.model}{beside})"

    def _repr_html_(self) -> str:
        sides = [_side(card, k) for k, card in enumerate(filter(None, (self.card, self.twin)))]
        return render({"sides": sides, "completions": _table(self.card, self.twin)}, [], _PICTURE)


def feature_view(card: FeatureCard, target_card: FeatureCard | None = None) -> FeatureView:
    """One feature as a small piece of HTML that a notebook keeps: examples, histogram, logits, completions.

    Args:
        card: of the feature.
        target_card: of its twin in another model, shown beside it.
    """
    return FeatureView(card, target_card)


def explore(
    sae: Sae,
    model: HookedModel,
    cards: Sequence[FeatureCard],
    *,
    moved: Moved | None = None,
    prompts: Sequence[str],
    strengths: Sequence[float | int] = STRENGTHS,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> "Explorer":
    """A widget: choose a feature, a strength, positions and a prompt, and read what the model says.

    Args:
        sae: of the model.
        model: that is steered.
        cards: of the features that can be chosen.
        moved: an SAE with the same features in another model, that model, and its cards: in a sequence those of the same
            numbers, in a mapping those of the twins by the number of the source's feature, or None, and a feature is added
            at the source's size.
        prompts: the first is there at the start; each can be edited.
        strengths: in units of a feature's size: the slider goes from the lowest to the highest, the picture has them all.
        max_new_tokens: of a completion, at most.

    Raises:
        ValueError: for no cards, no prompts, an SAE of another model, or without ipywidgets.
    """
    return Explorer(sae, model, cards, moved=moved, prompts=prompts, strengths=strengths, max_new_tokens=max_new_tokens)


@dataclass(frozen=True, eq=False)
class Controls:
    """The widgets of an explorer, of ipywidgets; setting the ``value`` of one is as good as moving it.

    Attributes:
        feature: chooses a feature, by its number.
        strength: the slider.
        positions: where the feature is added.
        examples: chooses one of the prompts that were given, by its number.
        prompt: what is asked, to be edited.
        output: what the models say, or why they cannot.
        whole: all of it.
    """

    feature: Any
    strength: Any
    positions: Any
    examples: Any
    prompt: Any
    output: Any
    whole: Any


class Explorer:
    """What ``explore`` returns; a notebook shows it. Its ``controls`` are made when they are first asked for."""

    def __init__(
        self,
        sae: Sae,
        model: HookedModel,
        cards: Sequence[FeatureCard],
        *,
        moved: Moved | None,
        prompts: Sequence[str],
        strengths: Sequence[float | int],
        max_new_tokens: int,
    ) -> None:
        if not cards or isinstance(prompts, str) or not prompts or not strengths:
            raise ValueError("there is nothing to choose from: give a list of cards, one of prompts, and strengths")
        for one, of in [(sae, model)] if moved is None else [(sae, model), moved[:2]]:
            one.check_model(of)
        self._cards = {card.index: card for card in cards}
        self._models = [(sae, model, self._cards)]
        if moved is not None:
            self._models.append((moved[0], moved[1], _twins(moved[2])))
        self._prompts, self._strengths, self._new = tuple(prompts), tuple(sorted({*map(float, strengths)})), max_new_tokens
        self._said: dict[Any, str] = {}
        self._picture: str | None = None
        self._mark = f"interp-transfer-{uuid4().hex[:12]}"
        _needed("ipywidgets")

    def static_html(self) -> str:
        """The picture that a notebook keeps: the first feature, with completions at each strength."""
        if self._picture is None:
            first = next((c for c in self._cards.values() if c.size > 0), next(iter(self._cards.values())))
            found = [self._completed(k, first.index) for k in range(len(self._models))]
            inside = feature_view(*found)._repr_html_()
            self._picture = f'<div class="{self._mark}">{inside}</div>'
        return self._picture

    def _completed(self, side: int, index: int) -> FeatureCard:
        sae, model, _ = self._models[side]
        card = self._card(side, index)
        if not card.size > 0 or card.completions:
            return card
        try:
            return with_completions(card, sae, model, self._prompts, self._strengths, max_new_tokens=self._new)
        except ValueError:  # of the prompts, such as one that is too long: the widget says so, the picture goes without
            return card

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """The live widget, and the picture for where it cannot live."""
        return {**self._plain(), "text/html": self.static_html(), VIEW: self.controls.whole._repr_mimebundle_()[VIEW]}

    def _ipython_display_(self) -> None:
        """Two outputs: the picture, and the live widget that hides it; viewers do not fall back within one output."""
        display = _needed("IPython.display").display
        display({**self._plain(), "text/html": self.static_html()}, raw=True)
        if _somebody_is_there():
            display({**self._plain(), VIEW: self.controls.whole._repr_mimebundle_()[VIEW]}, raw=True)

    def _plain(self) -> dict[str, str]:
        return {"text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"Explorer({len(self._cards)} features of {' and '.join(sae.model.name for sae, _, _ in self._models)})"

    def _card(self, side: int, index: int) -> FeatureCard:
        """The card of a feature, or of its twin; of a twin without one the source's, for its size."""
        return self._models[side][2].get(index, self._cards[index])

    @cached_property
    def controls(self) -> Controls:
        """The live widget.

        A batch run makes none: a notebook that holds widgets asks the network for their scripts.
        """
        widgets = _needed("ipywidgets")
        low, high = self._strengths[0], self._strengths[-1]
        wide: dict[str, Any] = {"style": {"description_width": "6em"}, "layout": {"width": "min(100%, 46em)"}}
        names = [(_name(card), card.index) for card in self._cards.values()]
        picks = [(f"{k + 1}: {_line(prompt)}", k) for k, prompt in enumerate(self._prompts)]
        feature = widgets.Dropdown(options=names, description="feature", **wide)
        strength = widgets.FloatSlider(
            value=min(max(1.0, low), high),
            min=low,
            max=high,
            step=0.25 if high - low <= 20 else 1.0,
            description="strength",
            continuous_update=False,
            **wide,
        )
        positions = widgets.Dropdown(options=KEYWORDS, value="all", description="positions", **wide)
        examples = widgets.Dropdown(options=picks, description="prompts", **wide)
        prompt = widgets.Textarea(value=self._prompts[0], description="prompt", rows=3, continuous_update=False, **wide)
        output = widgets.HTML()
        hide = widgets.HTML(f"<style>.{self._mark} {{ display: none; }}</style>")
        whole = widgets.VBox([feature, strength, positions, examples, prompt, output, hide])
        made = Controls(feature, strength, positions, examples, prompt, output, whole)
        examples.observe(lambda change: setattr(prompt, "value", self._prompts[change["new"]]), names="value")
        for control in (feature, strength, positions, prompt):
            control.observe(lambda _: self._refresh(made), names="value")
        self._refresh(made)
        return made

    def _refresh(self, controls: Controls) -> None:
        """Ask the models again, and show what they say or, in one line, why they cannot."""
        asked = (controls.feature.value, float(controls.strength.value), str(controls.positions.value), controls.prompt.value)
        try:
            text = self._answer(*asked)
        except (ValueError, RuntimeError) as error:
            text = f'<p role="alert" style="color: #c0392b">{_safe(_line(str(error) or type(error).__name__, 300))}</p>'
        controls.output.value = text

    def _answer(self, index: int, strength: float, positions: str, prompt: str) -> str:
        if not prompt:
            raise ValueError("the prompt is empty: write one")
        rows = []
        for side, (sae, _, _) in enumerate(self._models):
            name, colour = SIDES[side]
            told = f"{name}: {sae.model.name}"
            each = "".join(_answered(self._say(side, index, x, positions, prompt), colour) for x in (0.0, strength))
            rows.append(f"<tr><th style='{_CELL}'>{_safe(told)}</th>{each}</tr>")
        heads = "".join(f"<th style='{_CELL}'>{_safe(x)}</th>" for x in ("", "unsteered", f"strength {strength:g}"))
        return f"<table style='border-collapse: collapse; width: 100%'><tr>{heads}</tr>{''.join(rows)}</table>"

    def _say(self, side: int, index: int, strength: float, positions: str, prompt: str) -> str:
        sae, model, _ = self._models[side]
        card = self._card(side, index)
        key = (side, prompt) if strength == 0 else (side, prompt, index, strength, positions)
        if key not in self._said:
            size = card.size
            if strength and not size > 0:
                raise ValueError(f"feature {index} fires on none of the texts, so it has no size: choose another")
            steer = [add(sae.feature(card.index, size=size), strength, positions)] if strength else []
            [self._said[key]] = generate(model, [prompt], *steer, max_new_tokens=self._new, progress=False)
        return self._said[key]


def _twins(cards: Sequence[FeatureCard] | Mapping[int, FeatureCard] | None) -> dict[int, FeatureCard]:
    if isinstance(cards, Mapping):
        return dict(cards)
    return {card.index: card for card in cards or ()}


def _somebody_is_there() -> bool:
    """Whether this is no batch run: there, a kernel is told that nobody can be asked for input."""
    kernel = getattr(_needed("IPython").get_ipython(), "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", True))


def _needed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"this needs {module.split('.')[0]}: pip install 'interp-transfer[notebooks]'") from error


_CELL = "text-align: left; vertical-align: top; padding: 4px 10px; white-space: pre-wrap; overflow-wrap: anywhere"


def _answered(text: str, colour: str) -> str:
    style = f"{_CELL}; border-left: 3px solid rgb({colour}); font-family: monospace; unicode-bidi: plaintext"
    return f"<td style='{style}' dir='auto'>{_safe(text)}</td>"


def _safe(text: str) -> str:
    return html.escape(visible(text))


def _line(text: str, longest: int = 60) -> str:
    """A text on one line, cut off where it is too long."""
    line = " ".join(visible(text).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}\u2026"


def _name(card: FeatureCard) -> str:
    hints = ", ".join(repr(token.replace("\n", "")) for token in peak_tokens(card)[:2])
    return f"{card.index} \u00b7 {_line(hints)}" if hints else f"{card.index} \u00b7 never fires"


def _side(card: FeatureCard, k: int) -> dict[str, Any]:
    """What the template shows of one card."""
    name, colour = SIDES[k]
    first, then = (card.others, card.examples) if k else (card.examples, card.others)  # a twin's: the source's texts first
    examples = (*first, *(e for e in then if e.text_index not in {x.text_index for x in first}))
    most = max((max(e.activations, default=0.0) for e in examples), default=0.0) or 1.0
    return {
        "name": card.model or name,
        "colour": colour,
        "card": card,
        "histogram": Markup(histogram_svg(*card.histogram, colour=f"rgb({colour})")),
        "ranked": [("Promotes", _chips(card.promoted)), ("Suppresses", _chips(card.suppressed))] if card.promoted else [],
        "examples": [_spans(example, most) for example in examples],
    }


def _chips(ranked: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    return [(shown(token).replace("\n", ""), logit) for token, logit in ranked]


def _spans(example: Example, most: float) -> dict[str, Any]:
    first, last = window(example)
    told = zip(example.tokens[first:last], example.activations[first:last], strict=True)
    return {
        "text": example.text_index,
        "peak": example.activations[example.peak],
        "before": first > 0,
        "after": last < len(example.tokens),
        "spans": [(shown(token), value, 0.58 * max(0.0, min(1.0, value / most))) for token, value in told],
    }


def _table(card: FeatureCard, twin: FeatureCard | None) -> list[dict[str, Any]]:
    """Completions, a row for each prompt and strength."""
    sides = [side for side in (card, twin) if side is not None]
    found: dict[str, dict[float, list[str | None]]] = {}
    for k, side in enumerate(sides):
        for strength in sorted(side.completions):
            for prompt, said in side.completions[strength]:
                row = found.setdefault(prompt, {}).setdefault(strength, [None] * len(sides))
                row[k] = shown(said)
    return [{"prompt": shown(prompt), "rows": sorted(rows.items())} for prompt, rows in found.items()]


_PICTURE = """
{% set cell = "text-align: left; vertical-align: top; padding: 2px 10px 2px 0; white-space: pre-wrap;
 overflow-wrap: anywhere" %}
<div class="interp-transfer-feature" style="font-size: 14px; line-height: 1.5">
<div style="display: flex; flex-wrap: wrap; gap: 12px 32px">
{% for side in sides %}
<div style="flex: 1 1 340px; min-width: 0; border-top: 3px solid rgb({{ side.colour }}); padding-top: 6px">
<div><b>{{ side.name }} &middot; feature {{ side.card.index }}</b> <code>{{ side.card.site }}</code></div>
<div>{% if side.card.size %}Fires on {{ side.card.density | percent }} of tokens; mean activation there
{{ side.card.size | short }}.{% else %}Fires on none of the texts.{% endif %}</div>
{{ side.histogram }}
{% if side.ranked %}
<div style="display: flex; flex-wrap: wrap; gap: 0 32px">
{% for title, tokens in side.ranked %}
<table style="border-collapse: collapse; margin: 6px 0"><caption style="text-align: left">{{ title }}</caption>
{% for token, logit in tokens %}
<tr><td style="{{ cell }}"><code style="white-space: pre">{{ token }}</code></td>
<td style="{{ cell }}">{{ logit | short }}</td></tr>
{% endfor %}
</table>
{% endfor %}
</div>
{% endif %}
{% for example in side.examples %}
<p style="margin: 6px 0; white-space: pre-wrap; overflow-wrap: anywhere"><small>text {{ example.text }},
{%- if example.peak > 0 %} highest {{ example.peak | short }}{% else %} does not fire{% endif %}</small>
{% if example.before %}&hellip; {% endif -%}
{%- for token, value, alpha in example.spans -%}
<span style="unicode-bidi: isolate; border-radius: 3px
{%- if alpha > 0 %}; background-color: rgba({{ side.colour }}, {{ "%.2f" | format(alpha) }})" title="{{ value | short }}
{%- endif %}">{{ token }}</span>
{%- endfor %}
{%- if example.after %} &hellip;{% endif %}</p>
{% endfor %}
</div>
{% endfor %}
</div>
{% for each in completions %}
<table style="border-collapse: collapse; width: 100%; margin-top: 8px">
<caption style="text-align: left; white-space: pre-wrap; unicode-bidi: plaintext"><code>{{ each.prompt }}</code></caption>
<tr><th style="{{ cell }}">strength</th>{% for side in sides %}<th style="{{ cell }}">{{ side.name }}</th>{% endfor %}</tr>
{% for strength, said in each.rows %}
<tr><td style="{{ cell }}">{{ "%g" | format(strength) }}{% if not strength %} (unsteered){% endif %}</td>
{% for text in said %}
<td style="{{ cell }}; unicode-bidi: plaintext" dir="auto">{% if text is none %}&ndash;{% else %}{{ text }}{% endif %}</td>
{% endfor %}
</tr>
{% endfor %}
</table>
{% endfor %}
</div>
"""
