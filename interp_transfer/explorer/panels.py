"""The texts that the explorer shows beside each other, and how one of them is generated token by token."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from interp_transfer.explorer.made import Made
from interp_transfer.explorer.state import State
from interp_transfer.interventions.generation import check_room, end_tokens
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.interventions.prompt_cache import PromptCache
from interp_transfer.interventions.streaming import TextPieces, TokenStream
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.tokens import tokenizer_of

NAMES = {"source": "vector", "target": "moved", "native": "native", "random": "random"}
"""What the vectors of an item are called, see `items.Item`."""
FIRST, LATER = 1, 2
"""Tokens of a panel before it is another one's turn."""


@dataclass(frozen=True)
class Panel:
    """One text.

    Attributes:
        key: what it is, in words; no two panels share it.
        side: "source" or "target".
        what: "unsteered", or the name of its vector.
        model: the model.
        vector: what is added; None for the unsteered model.
        reads: the vector by which its tokens are coloured: its own, or that of the panels beside it.
    """

    key: str
    side: str
    what: str
    model: Made
    vector: Made | None
    reads: Made | None

    def steer(self, state: State, positions: Any) -> list[Intervention]:
        """The interventions that it is generated under."""
        return [] if self.vector is None else [add(self.vector.value, state.strength, positions)]


def panels(state: State, models: dict[str, Made], vectors: dict[str, Made], random: Callable[[Made], Made]) -> list[Panel]:
    """Return the panels of a view, in order.

    Args:
        state: the settings.
        models: by side.
        vectors: see `items.Item.vectors`.
        random: makes the random vector of another one's length.
    """
    two = len(models) > 1

    def panel(side: str, what: str, vector: Made | None, reads: Made | None) -> Panel:
        where = f"{side}, " if two else ""
        named = "unsteered" if vector is None else f"{NAMES[what]} x {state.strength:g}"
        return Panel(f"{where}{named}", side, "unsteered" if vector is None else NAMES[what], models[side], vector, reads)

    if state.view == "models":
        shown = []
        for side in models:
            own = vectors.get(side)
            shown += [panel(side, side, None, own), *([panel(side, side, own, own)] if own is not None else [])]
        return shown
    side = "target" if "target" in vectors else "source"
    chosen = {name: vectors[name] for name in (side, *(["native"] if two else [])) if name in vectors}
    chosen["random"] = random(vectors[side])
    return [panel(side, side, None, vectors[side]), *(panel(side, name, one, one) for name, one in chosen.items())]


class Generation:
    """A completion on its way, by greedy decoding; the model is free between two calls of `step`."""

    def __init__(
        self, model: HookedModel, ids: list[int], steer: Sequence[Intervention], most: int, prompts: PromptCache | None
    ) -> None:
        check_room(model, [ids], most)
        self.ids: list[int] = []
        self.text = ""
        self.ended = False
        self._most, self._ends = most, frozenset(end_tokens(model))
        self._pieces = TextPieces(tokenizer_of(model))
        self._stream = TokenStream(model, [ids], steer, prompts=prompts)

    def step(self) -> str:
        """Generate some tokens and return what they add to the text."""
        before = len(self.text)

        def give(token: list[int]) -> bool:
            self.ids += token
            self.ended = token[0] in self._ends or len(self.ids) == self._most
            self.text += self._pieces.add(token[0]) + (self._pieces.end() if self.ended else "")
            return self.ended

        self._stream.advance(give, min(LATER if self.ids else FIRST, self._most - len(self.ids)))
        if self.ended:
            self.close()
        return self.text[before:]

    def close(self) -> None:
        """Let go of the cache."""
        with closing(self._stream):
            self.ended = True
