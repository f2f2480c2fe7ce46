"""How well a mapper reproduces activations, by class of token: by the token's place in its text, and by its frequency.

One figure over all rows hides where a map fails. The first token of a text is often far from all others ("massive
activations", Sun et al. 2024), a trigger decides the behaviour, and the answer is predicted from the last token of a prompt.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp_transfer.activations.agreement import row_agreement
from interp_transfer.activations.capture import Activations, capture
from interp_transfer.activations.positions import substring
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.tokens import tokenizer_fingerprint
from interp_transfer.stats import Estimate, ratio_interval

ALL = "all"
FIRST, TRIGGER, LAST, REST = "first", "trigger", "last", "rest"
QUARTERS = ("rarest quarter", "second quarter", "third quarter", "most frequent quarter")


@dataclass(frozen=True)
class ClassFit:
    """How well one class of rows is reproduced.

    Attributes:
        fvu: squared error over squared distance from the mean of this class; None if all its rows are the same.
        cosine: mean cosine of the rows with their guesses.
        norm_ratio: mean length of the guesses over that of the rows.
        share_of_error: of the squared error over all classes.
        n: number of rows. The n of the estimates count texts with such rows, that of ``share_of_error`` all texts.
    """

    fvu: Estimate | None
    cosine: Estimate
    norm_ratio: Estimate
    share_of_error: Estimate
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON stores them."""
        return asdict(self)


def fit_by_class(
    truth: Float[Tensor, "row d"], guess: Float[Tensor, "row d"], labels: Sequence[str], texts: Int[Tensor, " row"]
) -> dict[str, ClassFit]:
    """Return FVU, cosine and norm ratio of each class of rows, in the order in which classes first occur; intervals over texts.

    Args:
        truth: the target's rows.
        guess: the mapped rows of the source.
        labels: class of each row.
        texts: number of each row's text.

    Raises:
        ValueError: for no rows, or arguments of different lengths.
    """
    if not len(truth) or not len(truth) == len(guess) == len(labels) == len(texts):
        raise ValueError(
            f"{len(truth)} rows, {len(guess)} guesses, {len(labels)} labels, {len(texts)} text numbers: give as many of each, "
            "at least one"
        )
    x, rows = truth.double(), row_agreement(truth, guess)
    of_text = texts.unique(return_inverse=True)[1]

    def by_text(values: Float[Tensor, " some"], rows: Bool[Tensor, " row"]) -> list[float]:
        sums = torch.zeros(int(of_text.max()) + 1, dtype=torch.float64).index_add(0, of_text[rows], values)
        return sums[of_text[rows].unique()].tolist()

    every = torch.ones(len(x), dtype=torch.bool)
    all_error = by_text(rows.error, every)
    exact = Estimate(0.0, 0.0, 0.0, len(all_error))
    fits = {}
    for name in dict.fromkeys(labels):
        mine = torch.tensor([label == name for label in labels])
        spread = (x[mine] - x[mine].mean(dim=0)).square().sum(dim=1)
        fits[name] = ClassFit(
            ratio_interval(by_text(rows.error[mine], mine), by_text(spread, mine)) if spread.sum() > 0 else None,
            ratio_interval(by_text(rows.cosine[mine], mine), by_text(torch.ones_like(spread), mine)),
            ratio_interval(by_text(rows.guessed_length[mine], mine), by_text(rows.length[mine], mine)),
            ratio_interval(by_text(rows.error * mine, every), all_error) if sum(all_error) else exact,
            int(mine.sum()),
        )
    return fits


def fits_by_token_class(
    mapper: Mapper, source: HookedModel, target: HookedModel, prompts: Sequence[str], trigger: str = ""
) -> dict[str, dict[str, ClassFit]]:
    """Return fits over all tokens ("tokens"), by their place in the prompt ("place"), and by their frequency ("frequency").

    Args:
        mapper: mapper between the two models.
        source: the model whose activations are mapped.
        target: the model whose activations they are compared with.
        prompts: prompts that the mapper was not fitted on.
        trigger: a text whose tokens form a class of their own, in prompts that contain it.

    Raises:
        ValueError: for models of different tokenizers, whose tokens do not correspond one to one.
    """
    if tokenizer_fingerprint(source) != tokenizer_fingerprint(target):
        raise ValueError(
            "the two models cut texts differently, so their tokens do not correspond one to one: see the mapper's card"
        )
    here = capture(source, prompts, mapper.source.site, progress=False)
    there = capture(target, prompts, mapper.target.site, progress=False)
    truth, guess = there[mapper.target.site].float(), mapper(here[mapper.source.site].float())
    held = [index for index, prompt in enumerate(prompts) if trigger and trigger in prompt]
    inside = set()
    if held:
        acts = capture(target, [prompts[index] for index in held], mapper.target.site, substring(trigger), progress=False)
        inside = {(held[t], p) for t, p in zip(acts.text_index.tolist(), acts.position.tolist(), strict=True)}
    labels = {
        "tokens": [ALL] * len(truth),
        "place": position_classes(there, inside),
        "frequency": frequency_classes(there.token),
    }
    return {by: fit_by_class(truth, guess, names, there.text_index) for by, names in labels.items()}


def position_classes(acts: Activations, trigger: Collection[tuple[int, int]] = ()) -> list[str]:
    """Return the place of each row in its text: first, trigger, last, or rest.

    Args:
        acts: all rows of some prompts, in order.
        trigger: text index and position of the trigger's tokens, if there is one.
    """
    text: list[int] = acts.text_index.tolist()
    position: list[int] = acts.position.tolist()
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for t, p in zip(text, position, strict=True):
        first[t], last[t] = min(p, first.get(t, p)), max(p, last.get(t, p))

    def kind(t: int, p: int) -> str:
        return TRIGGER if (t, p) in trigger else FIRST if p == first[t] else LAST if p == last[t] else REST

    return [kind(t, p) for t, p in zip(text, position, strict=True)]


def frequency_classes(tokens: Int[Tensor, " row"]) -> list[str]:
    """Return the quarter of each row's token, from the rarest to the most frequent among these rows.

    Each quarter has about a quarter of the rows; all rows of a token are in the same quarter.
    """
    kinds, inverse, counts = tokens.unique(return_inverse=True, return_counts=True)
    order = counts.argsort(stable=True)
    before = torch.zeros(len(kinds), dtype=torch.long)
    before[order] = counts[order].cumsum(0) - counts[order]
    quarter = (before * len(QUARTERS) // max(len(tokens), 1)).clamp(max=len(QUARTERS) - 1)
    return [QUARTERS[q] for q in quarter[inverse].tolist()]
