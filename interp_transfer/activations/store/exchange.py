"""Rows of a store that change places at random as they are read, for controls."""

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Int
from torch import Tensor

BLOCK_ROWS = 2048


@dataclass(frozen=True)
class Exchange:
    """Columns whose rows are exchanged at random, in all of them in the same way.

    The rows of a block are replaced by those of another block, drawn from the whole store, in random order. So partners come
    from elsewhere, and finding them takes no more than reading a block. Rows after the last whole block are exchanged among
    themselves; in a store that is shorter than a block, these are all rows.

    Attributes:
        columns: names of the columns.
        seed: of the exchange.
        block_rows: rows in a block.
    """

    columns: frozenset[str]
    seed: int
    block_rows: int = BLOCK_ROWS

    def partners(self, rows: Int[Tensor, " row"], total: int) -> Int[Tensor, " row"]:
        """Return the numbers of the rows that are read in place of some rows.

        Args:
            rows: numbers of rows.
            total: number of rows in the store.
        """
        size, block = self.block_rows, rows // self.block_rows
        blocks = _block_order(self.seed, total // size)
        out = torch.empty_like(rows)
        for number in block.unique().tolist():
            begin = number * size
            partner = int(blocks[number]) * size if number < len(blocks) else begin
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number + 1)
            order = torch.randperm(min(size, total - begin), generator=generator)
            here = block == number
            out[here] = partner + order[rows[here] - begin]
        return out


@cache
def _block_order(seed: int, blocks: int) -> Tensor:
    """The block that each whole block's rows are replaced by."""
    return torch.randperm(blocks, generator=torch.Generator().manual_seed(seed))
