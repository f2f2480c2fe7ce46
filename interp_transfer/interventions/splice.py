"""Overwrite a model's activations with those of another run, or of another model.

Activation patching puts one run's activation into another run of the same model; a mapper turns one model's activations into
another's. Both are the same act here: rows of captured activations, passed through a mapping (the identity for the same
model), replace what the site would have held, token by token.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_transfer.activations.capture import Activations
from interp_transfer.activations.positions import Positions
from interp_transfer.interventions.apply import Intervention
from interp_transfer.interventions.transforms import At

Mapping = Callable[[Float[Tensor, "n d_source"]], Float[Tensor, "n d_target"]]
Alignment = Callable[[Int[Tensor, " n"], Int[Tensor, " n"]], Int[Tensor, " n"]]
"""(text, position in the target) -> position in the source, or -1 where the source has nothing for that token."""


@dataclass(frozen=True)
class Spliced:
    """Rows by text and position; tokens that have none keep their own activation."""

    table: Int[Tensor, "text position"]
    values: Float[Tensor, "n d_target"]
    align: Alignment | None = None

    def __call__(self, a: Float[Tensor, "n d_target"], at: At) -> Float[Tensor, "n d_target"]:
        """The spliced rows."""
        row, position = at.row.cpu(), at.position.cpu()
        if self.align is not None:
            position = self.align(row, position)
        known = (row < self.table.shape[0]) & (position >= 0) & (position < self.table.shape[1])
        found = torch.full_like(row, -1)
        found[known] = self.table[row[known], position[known]]
        found = found.to(a.device)
        values = self.values.to(device=a.device, dtype=a.dtype)
        return torch.where((found >= 0)[:, None], values[found.clamp(min=0)], a)


@torch.no_grad()
def splice(
    activations: Activations,
    from_site: str,
    to_site: str,
    mapping: Mapping | None = None,
    positions: Positions = "prompt",
    align: Alignment | None = None,
) -> Intervention:
    """Replace activations at ``to_site`` by captured ones.

    Args:
        activations: captured on the same texts that the model is going to read, in the same order.
        from_site: which of them.
        to_site: where they go.
        mapping: from the source's space to the target's, a mapper for example; the identity if not given.
        positions: which tokens are overwritten.
        align: which source position stands for a target position; the same one if not given (same tokenizer).

    Raises:
        ValueError: where nothing was captured.
    """
    rows = activations[from_site]
    if not len(rows):
        raise ValueError("nothing was captured, so there is nothing to splice in: capture the prompts first")
    values = rows if mapping is None else mapping(rows)
    table = torch.full((int(activations.text_index.max()) + 1, int(activations.position.max()) + 1), -1)
    table[activations.text_index, activations.position] = torch.arange(len(rows))
    return Intervention(to_site, Spliced(table, values, align), positions)
