"""The record of a fitted mapper (`Card`), and its model card.

The model card is the README.md next to the weights. It shows the content of `Card`, all of it measured.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from interp_transfer.models.identity import Space

LIBRARY = "interp_transfer"
PAPER = "https://arxiv.org/abs/2503.04429"
CURVE_ROWS = 8
"""A longer training curve is shown at this number of evenly spaced epochs, and at its best epoch."""

_CITATION = """\
@inproceedings{oozeer2025activation,
  title     = {Activation Space Interventions Can Be Transferred Between Large Language Models},
  author    = {Oozeer, Narmeen Fatimah and Nathawani, Dhruv and Prakash, Nirmalendu and Lan, Michael and Harrasse, Abir
               and Abdullah, Amirali},
  booktitle = {Proceedings of the 42nd International Conference on Machine Learning},
  series    = {PMLR},
  volume    = {267},
  year      = {2025},
  note      = {arXiv:2503.04429}
}"""


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
    control = "**A control: it was fitted on exchanged partners and should explain nothing.**\n\n" if card.shuffled else ""
    spaces = [
        (side, space.model.name, space.model.fingerprint, space.model.processing, space.site, space.d)
        for side, space in (("source", source), ("target", target))
    ]
    fit = [
        ("kind", card.kind),
        ("parameters", f"{card.parameters:,}"),
        ("rows fitted", f"{card.rows:,}"),
        ("rows held out", f"{card.held_out_rows:,}"),
        ("fraction of variance unexplained, held out", f"{card.fvu:.4f} (0 is perfect, 1 as good as the mean)"),
        ("cosine between mapped and true rows, held out", f"{card.cosine:.4f}"),
        ("length of mapped over true rows, held out", f"{card.norm_ratio:.4f}"),
        ("alignment of the tokens", card.alignment),
        ("rows of massive length, not fitted", f"{card.massive_rows:,}"),
        ("seed", card.seed),
        *((f"setting {key}", json.dumps(value)) for key, value in card.settings.items()),
    ]
    curve = ""
    if card.curve:
        last, best = len(card.curve) - 1, card.curve.index(min(card.curve))
        shown = sorted({best, *(round(i * last / (CURVE_ROWS - 1)) for i in range(CURVE_ROWS))})
        epochs = [(i + 1, f"{card.curve[i]:.5g}") for i in shown]
        kept = f"{card.training} The weights of epoch {best + 1} were kept."
        curve = f"## Training\n\n{kept}\n\n{_table(('epoch', 'held-out loss'), epochs)}"
    return ModelCard(
        f"""---
{data.to_yaml()}
---

# {card.kind}: {source.model.name} to {target.model.name}

{control}A map from the activations of `{source.model.name}` at `{source.site}` to those of `{target.model.name}` at
`{target.site}`, fitted with interp_transfer. It moves steering vectors from the first model to the second.

```python
import interp_transfer as it
mapper = it.Mapper.from_pretrained({json.dumps(name)})
moved = mapper.transfer(vector)  # a SteeringVector of the source at its site
```

It refuses vectors of other models and sites. Maps do not preserve lengths: compare the moved vector's length with a native
vector's before you interpret strengths.

## Models

{_table(("", "model", "fingerprint", "weight processing", "site", "dimensions"), spaces)}
## Fit

{_table(("", ""), fit)}
{curve}
## Citation

The mapper was fitted with interp_transfer. The method is from [{PAPER}]({PAPER}):

```bibtex
{_CITATION}
```
"""
    )


def is_our_card(text: str) -> bool:
    """Return whether a README.md is a mapper's model card, which may be overwritten."""
    return text.startswith("---\n") and f"\nlibrary_name: {LIBRARY}\n" in text.split("\n---\n")[0] + "\n"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)
