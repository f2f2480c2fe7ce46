"""Many interventions in one batch: each on its own copy of the same texts.

A search tries the same prompts under many strengths and positions. One batch holds them all: text ``k * n + i`` is prompt i
under intervention k, and a single hook adds to each text what is its own. What a batch costs beside arithmetic is paid once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from interp_transfer.activations.positions import Layout, Positions, from_last, select
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.transforms import Add


@dataclass(frozen=True, eq=False)
class EachText:
    """Positions that differ from text to text: text ``k * n + i`` follows the k-th rule, as if it were text i.

    Attributes:
        rules: of positions.
        n: how many texts follow each.
    """

    rules: tuple[Positions, ...]
    n: int

    @property
    def from_last(self) -> bool:
        """Whether no rule names tokens before the prompt's last."""
        return all(map(from_last, self.rules))

    def __call__(self, layout: Layout) -> Bool[Tensor, "row column"]:
        """The columns that each row's own rule names."""
        which = layout.rows // self.n
        chosen = torch.zeros_like(layout.real)
        for rule, numbers in self._distinct():
            rows = torch.isin(which, torch.tensor(numbers, device=which.device)).nonzero()[:, 0]
            if len(rows):
                parts = {name: getattr(layout, name)[rows] for name in ("tokens", "real", "prompt_lengths", "rows")}
                part = Layout(**parts, tokenizer=layout.tokenizer)
                chosen[rows] = select(rule, replace(part, rows=part.rows % self.n))
        return chosen

    def _distinct(self) -> list[tuple[Positions, list[int]]]:
        """Each rule once, with the numbers at which it stands."""
        found: list[tuple[Positions, list[int]]] = []
        for number, rule in enumerate(self.rules):
            same = (numbers for other, numbers in found if _same(rule, other))
            if (numbers := next(same, None)) is None:
                found.append((rule, [number]))
            else:
                numbers.append(number)
        return found

    def __str__(self) -> str:
        return f"{len(self.rules)} rules, {self.n} texts each"


def can_merge(one: Intervention, other: Intervention) -> bool:
    """Whether two interventions can share a batch: both add one vector, to the same site of the same model."""
    if not all(isinstance(i.transform, Add) and i.transform.direction.ndim == 1 for i in (one, other)):
        return False
    if any(isinstance(i.transform.strength, Tensor) and i.transform.strength.ndim for i in (one, other)):  # type: ignore[attr-defined]
        return False
    return one.site == other.site and one.model == other.model and from_last(one.positions) == from_last(other.positions)


def can_share(one: Sequence[Intervention], other: Sequence[Intervention]) -> bool:
    """Whether two settings, of interventions that are applied together, can share a batch: each of one with its like."""
    return len(one) == len(other) > 0 and all(map(can_merge, one, other))


def merged(interventions: Sequence[Intervention], n: int) -> Intervention:
    """One intervention that does each of several to its own ``n`` texts.

    Args:
        interventions: any two of which ``can_merge``.
        n: how many texts each of them is for: text ``k * n + i`` is under the k-th.

    Raises:
        ValueError: for none, or some that cannot share a batch.
    """
    if not interventions or not all(can_merge(interventions[0], other) for other in interventions):
        raise ValueError("only interventions that add a vector to the same site of the same model can share a batch")
    first = interventions[0]
    transforms = [i.transform for i in interventions if isinstance(i.transform, Add)]
    strengths = torch.tensor([float(t.strength) for t in transforms]).repeat_interleave(n)
    direction = transforms[0].direction
    if any(t.direction is not direction for t in transforms):
        direction = torch.stack([t.direction for t in transforms]).repeat_interleave(n, dim=0)
    rules = tuple(i.positions for i in interventions)
    positions = rules[0] if all(_same(rule, rules[0]) and isinstance(rule, str) for rule in rules) else EachText(rules, n)
    return Intervention(first.site, Add(direction, strengths), positions, model=first.model)


def merged_each(settings: Sequence[Sequence[Intervention]], n: int) -> tuple[Intervention, ...]:
    """``merged`` for settings of several interventions: the first of each become one, and so on, in their order.

    Args:
        settings: interventions that are applied together, for each setting; any two of which ``can_share``.
        n: how many texts each setting is for: text ``k * n + i`` is under the k-th.

    Raises:
        ValueError: for none, or some that cannot share a batch.
    """
    if not settings or not all(can_share(settings[0], other) for other in settings):
        raise ValueError("only settings whose interventions can be merged one by one can share a batch")
    return tuple(merged(alike, n) for alike in zip(*settings, strict=True))


def _same(one: Positions, other: Positions) -> bool:
    if one is other:
        return True
    return not isinstance(one, Tensor) and not isinstance(other, Tensor) and one == other
