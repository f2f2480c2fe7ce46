"""The record of a fitted mapper (`Card`), and its model card.

The model card is the README.md next to the weights (`card.md.j2`). It shows the content of `Card`, all of it measured.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from interp_transfer.escape import markdown, markdown_code
from interp_transfer.models.identity import Space

LIBRARY = "interp_transfer"
PAPER = "https://arxiv.org/abs/2503.04429"
CURVE_ROWS = 8
"""A longer training curve is shown at this number of evenly spaced epochs, and at its best epoch."""


@dataclass(frozen=True)
class Card:
    """The record of a fitted mapper. Its figures are of held-out texts.

    Attributes:
        kind: name of the kind.
        parameters: number of fitted parameters.
        fvu: fraction of variance unexplained, with a mean for each dimension; 0 is perfect, 1 is as good as the mean.
        cosine: mean cosine between mapped and true rows.
        norm_ratio: mean length of mapped rows over mean length of true rows.
        rows: number of rows that it was fitted on.
        held_out_rows: number of rows that it was tested on.
        seed: seed of the split, the initial weights and the order of batches.
        settings: settings of the kind, with the values that were chosen.
        curve: held-out loss after each epoch, for kinds that are trained by gradient.
        shuffled: whether it is a control, fitted on exchanged partners.
        alignment: how tokens were paired.
        massive_rows: number of rows of massive length, which were not fitted (see ``fit``).
    """

    kind: str
    parameters: int
    fvu: float
    cosine: float
    norm_ratio: float
    rows: int
    held_out_rows: int
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    curve: list[float] = field(default_factory=list)
    shuffled: bool = False
    alignment: str = "same_tokens"
    massive_rows: int = 0

    @property
    def training(self) -> str:
        """How a training ended, and what more epochs could gain, in a sentence; empty for kinds without a training."""
        if not self.curve:
            return ""
        epochs, most = len(self.curve), self.settings.get("epochs", len(self.curve))
        best = self.curve.index(min(self.curve)) + 1
        if epochs < most:
            return f"Stopped after {epochs} of {most} epochs: the held-out error had not fallen since epoch {best}."
        quarter = -(-epochs // 4)
        gained = 1 - min(self.curve) / min(self.curve[:-quarter] or self.curve[:1])
        return f"All {most} epochs: the last {quarter} lowered the held-out error by {gained:.1%}; more may gain as much."


def model_card(source: Space, target: Space, card: Card, data: ModelCardData, name: str) -> ModelCard:
    """Return the model card of a mapper.

    Args:
        source: the space that it maps from.
        target: the space that it maps to.
        card: its record.
        data: metadata at the top of the card.
        name: repository or folder that the card's example passes to ``Mapper.from_pretrained``.
    """
    last = max(len(card.curve) - 1, 0)
    best = card.curve.index(min(card.curve)) if card.curve else 0
    shown = {best, *(round(i * last / (CURVE_ROWS - 1)) for i in range(CURVE_ROWS))}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"escaped": markdown, "code": markdown_code}
    text = environment.get_template("card.md.j2").render(
        source=source,
        target=target,
        card=card,
        data=data,
        name=name,
        best=best + 1,
        epochs=[i + 1 for i in sorted(shown)],
        paper=PAPER,
        json=json.dumps,
    )
    return ModelCard(text)


def is_our_card(text: str) -> bool:
    """Return whether a README.md is a mapper's model card, which may be overwritten."""
    return text.startswith("---\n") and f"\nlibrary_name: {LIBRARY}\n" in text.split("\n---\n")[0] + "\n"
