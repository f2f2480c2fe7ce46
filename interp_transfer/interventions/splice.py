"""Overwrite a model's activations with those of another run, or of another model.

Activation patching puts one run's activation into another run of the same model; a mapper turns one model's activations into
another's. Both are the same act here: rows of captured activations, passed through a mapping (the identity for the same
model), replace what the site would have held, token by token. Fused replacement keeps a part of it (Freeman and Ngangmeni,
"Shared Truth": (1 - a) h_target + a f(h_source)).

Captured rows reach as far as the texts that were captured; `follow` lets another model read along while text is generated.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_transfer.activations.capture import Activations
from interp_transfer.activations.positions import Positions
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.transforms import At

Mapping = Callable[[Float[Tensor, "n d_source"]], Float[Tensor, "n d_target"]]
Alignment = Callable[[Int[Tensor, " n"], Int[Tensor, " n"]], Int[Tensor, " n"]]
"""(text, position in the target) -> position in the source, or -1 where the source has nothing for that token."""


def fused(own: Float[Tensor, "n d"], other: Float[Tensor, "n d"], amount: float) -> Float[Tensor, "n d"]:
    """(1 - amount) own + amount other: exactly ``own`` at 0 and exactly ``other`` at 1."""
    return other if amount == 1 else own if amount == 0 else (1 - amount) * own + amount * other


def check_amount(amount: float | int) -> float:
    """Return ``amount`` if it is a share.

    Raises:
        ValueError: for anything outside of 0 to 1.
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"amount={amount}: give the share that is replaced, from 0 (nothing) to 1 (all of it)")
    return float(amount)


@dataclass(frozen=True)
class Spliced:
    """Rows by text and position; tokens that have none keep their own activation.

    Attributes:
        table: which of the values each text has at each position, -1 for none.
        values: the rows.
        align: see ``Alignment``; positions as they are if not given.
        amount: the share of the activation that is replaced, 0 to 1.
    """

    table: Int[Tensor, "text position"]
    values: Float[Tensor, "n d_target"]
    align: Alignment | None = None
    amount: float = 1.0

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
        if values.shape[1] != a.shape[1]:
            raise ValueError(f"rows of width {values.shape[1]} are spliced into a site of width {a.shape[1]}: map them to it")
        return torch.where((found >= 0)[:, None], fused(a, values[found.clamp(min=0)], self.amount), a)


@torch.no_grad()
def splice(
    activations: Activations,
    from_site: str,
    to_site: str,
    mapping: Mapping | None = None,
    positions: Positions = "prompt",
    align: Alignment | None = None,
    amount: float | int = 1.0,
) -> Intervention:
    """Replace activations at ``to_site`` by captured ones.

    Args:
        activations: captured on the same texts that the model is going to read, in the same order.
        from_site: which of them.
        to_site: where they go.
        mapping: from the source's space to the target's, a mapper for example; the identity if not given.
        positions: which tokens are overwritten.
        align: which source position stands for a target position; the same one if not given (same tokenizer).
        amount: a in (1 - a) own + a spliced; 1 replaces all of the activation.

    Raises:
        ValueError: where nothing was captured, or for an amount outside of 0 to 1.
    """
    share = check_amount(amount)
    rows = activations[from_site]
    if not len(rows):
        raise ValueError("nothing was captured, so there is nothing to splice in: capture the prompts first")
    values = rows if mapping is None else mapping(rows)
    table = torch.full((int(activations.text_index.max()) + 1, int(activations.position.max()) + 1), -1)
    table[activations.text_index, activations.position] = torch.arange(len(rows))
    return Intervention(to_site, Spliced(table, values, align, share), positions)
