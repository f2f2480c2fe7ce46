"""Merge interventions, so that one batch tries several on copies of the same texts.

A search tries the same prompts under many strengths and positions. In a merged batch, text ``k * n + i`` is prompt i under
intervention k, and one hook adds to each text what its own intervention adds. The cost of a batch besides arithmetic is then
paid once.
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
        rules: rules of positions.
        n: how many texts follow each rule.
    """

    rules: tuple[Positions, ...]
    n: int

    @property
    def from_last(self) -> bool:
        """Whether no rule selects tokens before the prompt's last."""
        return all(map(from_last, self.rules))

    def __call__(self, layout: Layout) -> Bool[Tensor, "row column"]:
        """Return the columns that each row's own rule selects."""
        rule_of_row = layout.rows // self.n
        selected = torch.zeros_like(layout.real)
        for rule, numbers in self._distinct_rules():
            rows = torch.isin(rule_of_row, torch.tensor(numbers, device=rule_of_row.device)).nonzero()[:, 0]
            if len(rows):
                fields = {name: getattr(layout, name)[rows] for name in ("tokens", "real", "prompt_lengths")}
                selected[rows] = select(rule, replace(layout, **fields, rows=layout.rows[rows] % self.n))
        return selected

    def _distinct_rules(self) -> list[tuple[Positions, list[int]]]:
        """Each rule once, with the indices at which it occurs."""
        distinct: list[tuple[Positions, list[int]]] = []
        for number, rule in enumerate(self.rules):
            numbers = next((numbers for other, numbers in distinct if _same_rule(rule, other)), None)
            if numbers is None:
                distinct.append((rule, [number]))
            else:
                numbers.append(number)
        return distinct

    def __str__(self) -> str:
        return f"{len(self.rules)} rules, {self.n} texts each"


def can_share(one: Sequence[Intervention], other: Sequence[Intervention]) -> bool:
    """Return whether two settings can share a batch. A setting is a list of interventions that are applied together.

    They can if, one by one, both add a single vector at the same site of the same model.
    """
    return len(one) == len(other) > 0 and all(map(_can_merge, one, other))


def merged(settings: Sequence[Sequence[Intervention]], n: int) -> tuple[Intervention, ...]:
    """Return interventions that apply each setting to its own ``n`` texts: text ``k * n + i`` is under the k-th.

    The first interventions of all settings become one, and so on, in order.

    Raises:
        ValueError: for no settings, or some that cannot share a batch.
    """
    if not settings or not all(can_share(settings[0], other) for other in settings):
        raise ValueError("only settings whose interventions add a vector each, at the same sites, can share a batch")
    return tuple(_merged(column, n) for column in zip(*settings, strict=True))


def _can_merge(one: Intervention, other: Intervention) -> bool:
    for transform in (one.transform, other.transform):
        if not isinstance(transform, Add) or transform.direction.ndim != 1:
            return False
        if isinstance(transform.strength, Tensor) and transform.strength.ndim:
            return False
    return one.site == other.site and one.model == other.model and from_last(one.positions) == from_last(other.positions)


def _merged(interventions: Sequence[Intervention], n: int) -> Intervention:
    first = interventions[0]
    transforms = [i.transform for i in interventions if isinstance(i.transform, Add)]
    strengths = torch.tensor([float(t.strength) for t in transforms]).repeat_interleave(n)
    direction = transforms[0].direction
    if any(t.direction is not direction for t in transforms):
        direction = torch.stack([t.direction for t in transforms]).repeat_interleave(n, dim=0)
    rules = tuple(i.positions for i in interventions)
    positions = rules[0] if all(_same_rule(rule, rules[0]) and isinstance(rule, str) for rule in rules) else EachText(rules, n)
    return Intervention(first.site, Add(direction, strengths), positions, model=first.model)


def _same_rule(one: Positions, other: Positions) -> bool:
    if one is other:
        return True
    return not isinstance(one, Tensor) and not isinstance(other, Tensor) and one == other
