"""Overwrite activations with those of another run, or of another model.

Activation patching puts one run's activation into another run of the same model; a mapper turns one model's activations into
another's. Both are the same operation: rows of captured activations, passed through a mapping (the identity for the same
model), replace the site's own, token by token. Fused replacement keeps a share of the site's own activation (Freeman and
Ngangmeni, "Shared Truth": (1 - a) h_target + a f(h_source)).

Captured rows cover the captured texts alone; ``follow`` runs the other model along while text is generated.
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


def fused(own: Float[Tensor, "n d"], other: Float[Tensor, "n d"], amount: float) -> Float[Tensor, "n d"]:
    """Return (1 - amount) own + amount other: exactly ``own`` at 0 and exactly ``other`` at 1."""
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
    """Rows by text and position; tokens without a row keep their own activation.

    Attributes:
        table: index into ``values`` for each text and position, -1 for none.
        values: the rows.
        amount: the share of the activation that is replaced, 0 to 1.
    """

    table: Int[Tensor, "text position"]
    values: Float[Tensor, "n d_target"]
    amount: float = 1.0

    def __call__(self, a: Float[Tensor, "n d_target"], at: At) -> Float[Tensor, "n d_target"]:
        """Return the rows, replaced where there is a value for their token."""
        row, position = at.row.cpu(), at.position.cpu()
        inside = (row < self.table.shape[0]) & (position < self.table.shape[1])
        index = torch.full_like(row, -1)
        index[inside] = self.table[row[inside], position[inside]]
        index = index.to(a.device)
        values = self.values.to(device=a.device, dtype=a.dtype)
        if values.shape[1] != a.shape[1]:
            raise ValueError(f"rows of width {values.shape[1]} are spliced into a site of width {a.shape[1]}: map them to it")
        return torch.where((index >= 0)[:, None], fused(a, values[index.clamp(min=0)], self.amount), a)


@torch.no_grad()
def splice(
    activations: Activations,
    from_site: str,
    to_site: str,
    mapping: Mapping | None = None,
    positions: Positions = "prompt",
    amount: float | int = 1.0,
) -> Intervention:
    """Replace activations at ``to_site`` by captured ones.

    Args:
        activations: captured on the texts that the model is going to read, in the same order.
        from_site: the site of the captured rows.
        to_site: the site whose activations are replaced.
        mapping: from the source's space to the target's, such as a mapper; the identity by default.
        positions: which tokens are overwritten.
        amount: a in (1 - a) own + a spliced; 1 replaces all of the activation.

    Raises:
        ValueError: for empty activations, or an amount outside of 0 to 1.
    """
    amount = check_amount(amount)
    rows = activations[from_site]
    if not len(rows):
        raise ValueError("nothing was captured, so there is nothing to splice in: capture the prompts first")
    values = rows if mapping is None else mapping(rows)
    table = torch.full((int(activations.text_index.max()) + 1, int(activations.position.max()) + 1), -1)
    table[activations.text_index, activations.position] = torch.arange(len(rows))
    return Intervention(to_site, Spliced(table, values, amount), positions)
