"""What patches do to a metric: the part that the results of activation patching and of path patching share."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.stats import student

if TYPE_CHECKING:
    import pandas as pd

Place = tuple[str, int | None]
"""A site, and a head where heads are patched separately."""


def place_name(place: Place) -> str:
    """Return the name of a place in figures."""
    site, head = place
    return site if head is None else f"{site}, head {head}"


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class Effects:
    """The effect on the metric of a table of patches.

    Attributes:
        effect: metric under the patch minus that of the corrupted prompt; NaN where there is no patch.
        clean: metric of each clean prompt.
        corrupted: metric of each corrupted prompt.
    """

    effect: Float[Tensor, "text row column"]
    clean: Float[Tensor, " text"]
    corrupted: Float[Tensor, " text"]

    @property
    def recovered(self) -> Float[Tensor, "row column"]:
        """Share of the metric's difference that a patch recovers: mean effect over mean difference; 0 none, 1 all."""
        return self.effect.mean(dim=0) / (self.clean - self.corrupted).mean()

    def to_frame(self) -> "pd.DataFrame":
        """Return a row for each patch: mean effect with half of its 95% interval over prompts, and the share recovered."""
        import pandas as pd

        n, means = len(self.effect), self.effect.mean(dim=0)
        half = student(n - 1) * self.effect.std(dim=0) / n**0.5 if n > 1 else torch.full_like(means, torch.nan)
        columns = {"effect": means, "half": half, "recovered": self.recovered}
        rows = []
        for row, column in self.effect[0].isnan().logical_not().nonzero().tolist():
            figures = {name: float(values[row, column]) for name, values in columns.items()}
            rows.append({**self._labels(row, column), "n": n, **figures})
        return pd.DataFrame(rows)

    @abstractmethod
    def _labels(self, row: int, column: int) -> dict[str, Any]:
        """Columns of the frame that name a patch."""

    def _largest(self) -> tuple[int, int]:
        """Row and column of the patch that recovers most."""
        recovered = self.recovered.nan_to_num(nan=-torch.inf)
        row, column = divmod(int(recovered.argmax()), recovered.shape[1])
        return row, column
