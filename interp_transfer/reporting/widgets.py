"""A notebook widget to steer with a feature by hand.

It works offline. A notebook keeps a static picture, so it can be read where no kernel runs: the style sheet of the live widget
hides the picture while the widget is there. A notebook that is run in batch keeps the picture alone, since nobody can move a
slider.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from interp_transfer.activations.positions import KEYWORDS
from interp_transfer.escape import one_line, visible
from interp_transfer.features.cards import STRENGTHS, FeatureCard, with_completions
from interp_transfer.features.sae import Sae
from interp_transfer.interventions.generation import generate
from interp_transfer.interventions.intervention import add
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.reporting.feature_page import peak_tokens
from interp_transfer.reporting.feature_view import SIDES, feature_view, needed
from interp_transfer.reporting.render import render

VIEW = "application/vnd.jupyter.widget-view+json"
MAX_NEW_TOKENS = 40

Moved = tuple[Sae, HookedModel, Sequence[FeatureCard] | Mapping[int, FeatureCard] | None]


class Explorer:
    """The result of ``explore``, displayed by a notebook. Its ``controls`` are made on first use."""

    def __init__(
        self,
        sae: Sae,
        model: HookedModel,
        cards: Sequence[FeatureCard],
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
            twins = moved[2]
            by_index = dict(twins) if isinstance(twins, Mapping) else {card.index: card for card in twins or ()}
            self._models.append((moved[0], moved[1], by_index))
        self._prompts, self._strengths = tuple(prompts), tuple(sorted({*map(float, strengths)}))
        self._max_new_tokens = max_new_tokens
        self._generated: dict[Any, str] = {}
        self._picture: str | None = None
        self._mark = f"interp-transfer-{uuid4().hex[:12]}"
        needed("ipywidgets")

    def static_html(self) -> str:
        """The picture that a notebook keeps: the first feature that fires, with completions at each strength."""
        if self._picture is None:
            first = next((c for c in self._cards.values() if c.size > 0), next(iter(self._cards.values())))
            cards = [self._completed(k, first.index) for k in range(len(self._models))]
            self._picture = f'<div class="{self._mark}">{feature_view(*cards)._repr_html_()}</div>'
        return self._picture

    def _completed(self, side: int, index: int) -> FeatureCard:
        sae, model, _ = self._models[side]
        card = self._card(side, index)
        if not card.size > 0 or card.completions:
            return card
        try:
            return with_completions(card, sae, model, self._prompts, self._strengths, max_new_tokens=self._max_new_tokens)
        except ValueError:  # such as a prompt that is too long: the widget reports it, the picture has no completions
            return card

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """The live widget, and the picture for where it cannot live."""
        return {**self._plain(), "text/html": self.static_html(), VIEW: self.controls.whole._repr_mimebundle_()[VIEW]}

    def _ipython_display_(self) -> None:
        """Two outputs, the picture and the live widget that hides it; viewers do not fall back within one output."""
        display = needed("IPython.display").display
        display({**self._plain(), "text/html": self.static_html()}, raw=True)
        if is_interactive():
            display({**self._plain(), VIEW: self.controls.whole._repr_mimebundle_()[VIEW]}, raw=True)

    def _plain(self) -> dict[str, str]:
        return {"text/plain": repr(self)}

    def __repr__(self) -> str:
        models = " and ".join(sae.model.name for sae, _, _ in self._models)
        return visible(f"Explorer({len(self._cards)} features of {models})")

    def _card(self, side: int, index: int) -> FeatureCard:
        """The card of a feature or of its twin; of a twin without a card the source's, for its size."""
        return self._models[side][2].get(index, self._cards[index])

    @cached_property
    def controls(self) -> SimpleNamespace:
        """The live ipywidgets: feature, strength, positions, prompt, examples (of prompts), output, and the whole of them.

        Setting the ``value`` of one has the effect of moving it; features and examples are chosen by number. A batch run makes
        none: a notebook that holds widgets requests their scripts from the network.
        """
        widgets = needed("ipywidgets")
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
        steering = {"feature": feature, "strength": strength, "positions": positions, "prompt": prompt}
        controls = SimpleNamespace(**steering, examples=examples, output=output, whole=whole)
        examples.observe(lambda change: setattr(prompt, "value", self._prompts[change["new"]]), names="value")
        for control in steering.values():
            control.observe(lambda _: self._refresh(controls), names="value")
        self._refresh(controls)
        return controls

    def _refresh(self, controls: SimpleNamespace) -> None:
        """Generate again, and show the completions or, in one line, the error."""
        index, strength, positions = controls.feature.value, float(controls.strength.value), str(controls.positions.value)
        try:
            rows = self._rows(index, strength, positions, controls.prompt.value)
            shown = render("explorer.html.j2", error=None, rows=rows, strength=strength)
        except (ValueError, RuntimeError) as error:
            shown = render("explorer.html.j2", error=_line(str(error) or type(error).__name__, 300)).strip()
        controls.output.value = shown

    def _rows(self, index: int, strength: float, positions: str, prompt: str) -> list[tuple[str, str, list[str]]]:
        """For each model its name, its colour, and its completions without and with the feature."""
        if not prompt:
            raise ValueError("the prompt is empty: write one")
        rows = []
        for side, (sae, _, _) in enumerate(self._models):
            name, colour = SIDES[side]
            completions = [self._generate(side, index, x, positions, prompt) for x in (0.0, strength)]
            rows.append((f"{name}: {sae.model.name}", colour, completions))
        return rows

    def _generate(self, side: int, index: int, strength: float, positions: str, prompt: str) -> str:
        sae, model, _ = self._models[side]
        card = self._card(side, index)
        key = (side, prompt) if strength == 0 else (side, prompt, index, strength, positions)
        if key not in self._generated:
            if strength and not card.size > 0:
                raise ValueError(f"feature {index} fires on none of the texts, so it has no size: choose another")
            steer = [add(sae.feature(card.index, size=card.size), strength, positions)] if strength else []
            [self._generated[key]] = generate(model, [prompt], *steer, max_new_tokens=self._max_new_tokens, progress=False)
        return self._generated[key]


def explore(
    sae: Sae,
    model: HookedModel,
    cards: Sequence[FeatureCard],
    *,
    moved: Moved | None = None,
    prompts: Sequence[str],
    strengths: Sequence[float | int] = STRENGTHS,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Explorer:
    """A widget: choose a feature, a strength, positions and a prompt, and read what the model says.

    Args:
        sae: of the model.
        model: that is steered.
        cards: of the features that can be chosen.
        moved: an SAE with the same features in another model, that model, and its cards: a sequence of cards with the same
            numbers, a mapping of twins by the number of the source's feature, or None, and features are added at the source's
            size.
        prompts: the first is shown at the start; each can be edited.
        strengths: in units of a feature's size: the slider goes from the lowest to the highest, the picture has them all.
        max_new_tokens: of a completion, at most.

    Raises:
        ValueError: for no cards, no prompts, an SAE of another model, or without ipywidgets.
    """
    return Explorer(sae, model, cards, moved, prompts, strengths, max_new_tokens)


def is_interactive() -> bool:
    """Whether a person can use the widget; the kernel of a batch run may not ask for input."""
    kernel = getattr(needed("IPython").get_ipython(), "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", True))


def _line(text: str, longest: int = 60) -> str:
    """A text on one line, cut if it is too long."""
    line = one_line(text)
    return line if len(line) <= longest else f"{line[: longest - 1]}\u2026"


def _name(card: FeatureCard) -> str:
    hints = ", ".join(repr(token.replace("\n", "")) for token in peak_tokens(card)[:2])
    return f"{card.index} \u00b7 {_line(hints)}" if hints else f"{card.index} \u00b7 never fires"
