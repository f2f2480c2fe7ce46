"""The rows that a mapper is fitted or judged on, in whatever form they lie there: block by block, or in shuffled batches."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.mapping.moments import Block

BLOCK_ROWS = 8192


@runtime_checkable
class Part(Protocol):
    """Paired rows. ``len`` says how many."""

    def __len__(self) -> int: ...

    def blocks(self) -> Iterator[Block]:
        """All rows in order, a block at a time."""
        ...

    def batches(self, size: int, seed: int) -> Iterator[Block]:
        """All rows, each once, in random order."""
        ...


@dataclass(frozen=True)
class MemoryPart:
    """Rows in memory.

    Attributes:
        x: of the source.
        y: of the target.
    """

    x: Float[Tensor, "row d_source"]
    y: Float[Tensor, "row d_target"]

    def __len__(self) -> int:
        return len(self.x)

    def blocks(self) -> Iterator[Block]:
        """Slices of the rows."""
        for start in range(0, len(self), BLOCK_ROWS):
            yield self.x[start : start + BLOCK_ROWS], self.y[start : start + BLOCK_ROWS]

    def batches(self, size: int, seed: int) -> Iterator[Block]:
        """Rows by a permutation that the seed fixes."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        for chosen in order.split(size):
            yield self.x[chosen], self.y[chosen]


@dataclass(frozen=True)
class Changed:
    """Another part's rows, changed on their way: scaled, say.

    Attributes:
        part: whose rows.
        change: what is done to each block; it keeps the number of rows.
    """

    part: Part
    change: Callable[[Block], Block]

    def __len__(self) -> int:
        return len(self.part)

    def blocks(self) -> Iterator[Block]:
        """The other's blocks, changed."""
        return map(self.change, self.part.blocks())

    def batches(self, size: int, seed: int) -> Iterator[Block]:
        """The other's batches, changed."""
        return map(self.change, self.part.batches(size, seed))


def joined(blocks: Iterable[Block]) -> Block:
    """All rows at once."""
    pieces = list(blocks)
    return torch.cat([x for x, _ in pieces]), torch.cat([y for _, y in pieces])
