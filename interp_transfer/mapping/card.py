"""What is known of a fitted mapper, and the model card that tells it to a reader.

The card is a README.md beside the weights. It says what `Card` holds and nothing that was not measured.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from interp_transfer.models.identity import ModelIdentity

LIBRARY = "interp_transfer"
PAPER = "https://arxiv.org/abs/2503.04429"
CURVE_ROWS = 8
"""A training curve that is longer is shown at so many epochs, evenly spread, and at its best."""

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
class Space:
    """One side of a mapper: a model, a site, and how many dimensions it has."""

    model: ModelIdentity
    site: str
    d: int


@dataclass(frozen=True)
class Card:
    """What is known about a fitted mapper; figures are of texts that it was not fitted on.

    Attributes:
        kind: name of the mapper.
        parameters: how many numbers were fitted.
        fvu: fraction of variance unexplained, mean taken for each dimension; 0 is perfect, 1 as good as the mean.
        cosine: mean cosine between mapped and true rows.
        norm_ratio: mean length of mapped rows over that of true rows.
        rows: rows that it was fitted on.
        held_out_rows: rows that it was judged on.
        seed: of the split, the initial weights and the order of batches.
        settings: of its kind, as used.
        curve: held-out loss after each epoch, for those that are trained by gradient.
        shuffled: whether it is the control that was fitted on exchanged partners.
        alignment: how tokens were paired.
        massive_rows: rows that were far longer than the others, and set apart (see ``fit``).
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


def model_card(source: Space, target: Space, card: Card, data: ModelCardData, name: str) -> ModelCard:
    """The README.md of a mapper.

    Args:
        source: the space it maps from.
        target: the space it maps to.
        card: what is known about it.
        data: the metadata that stands above the text.
        name: what ``Mapper.from_pretrained`` is to be given: a repository's name, or a folder.
    """
    control = "**A control: it was fitted on exchanged partners, and ought to explain nothing.**\n\n" if card.shuffled else ""
    spaces = [
        (side, space.model.name, space.model.fingerprint, space.model.processing, space.site, space.d)
        for side, space in (("source", source), ("target", target))
    ]
    fit = [
        ("kind", card.kind),
        ("parameters", f"{card.parameters:,}"),
        ("rows that it was fitted on", f"{card.rows:,}"),
        ("rows held out", f"{card.held_out_rows:,}"),
        ("fraction of variance unexplained, held out", f"{card.fvu:.4f} (0 is perfect, 1 as good as the mean)"),
        ("cosine between mapped and true rows, held out", f"{card.cosine:.4f}"),
        ("length of mapped over true rows, held out", f"{card.norm_ratio:.4f}"),
        ("alignment of the tokens", card.alignment),
        ("massive rows, set apart", f"{card.massive_rows:,}"),
        ("seed", card.seed),
        *((f"setting {key}", json.dumps(value)) for key, value in card.settings.items()),
    ]
    curve = ""
    if card.curve:
        last, best = len(card.curve) - 1, card.curve.index(min(card.curve))
        shown = sorted({best, *(round(i * last / (CURVE_ROWS - 1)) for i in range(CURVE_ROWS))})
        epochs = [(i + 1, f"{card.curve[i]:.5g}") for i in shown]
        curve = f"## Training\n\nThe weights of epoch {best + 1} were kept.\n\n{_table(('epoch', 'held-out loss'), epochs)}"
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

It refuses vectors of other models and sites. A map does not keep lengths: compare the moved vector's with a native one's
before reading strengths.

## Between

{_table(("", "model", "fingerprint", "weight processing", "site", "dimensions"), spaces)}
## Fit

{_table(("", ""), fit)}
{curve}
## Citation

The mapper is the tool's; the idea is the paper's, [{PAPER}]({PAPER}):

```bibtex
{_CITATION}
```
"""
    )


def is_our_card(text: str) -> bool:
    """Whether a README.md was written here, so that it may be written anew."""
    return text.startswith("---\n") and f"\nlibrary_name: {LIBRARY}\n" in text.split("\n---\n")[0] + "\n"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)
