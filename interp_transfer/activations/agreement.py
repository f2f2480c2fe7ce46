"""How well guessed rows agree with true ones: FVU, cosine and norm ratio, of two tensors or block by block."""

import torch
from jaxtyping import Float
from torch import Tensor


class Agreement:
    """Running sums, in float64."""

    def __init__(self) -> None:
        self._rows = 0
        self._shift: Tensor | None = None  # near the mean, so that large means cost no digits
        self._sum = self._square = self._error = self._cosine = self._lengths = self._guessed = torch.zeros(())

    def update(self, truth: Float[Tensor, "row d"], guess: Float[Tensor, "row d"]) -> None:
        """Add rows."""
        if not len(truth):
            return
        truth, guess = truth.double(), guess.double()
        self._shift = truth.mean(dim=0) if self._shift is None else self._shift
        centred = truth - self._shift
        self._rows += len(truth)
        self._sum = self._sum + centred.sum(dim=0)
        self._square = self._square + centred.square().sum()
        self._error = self._error + (truth - guess).square().sum()
        self._cosine = self._cosine + torch.nn.functional.cosine_similarity(truth, guess, dim=1).sum()
        self._lengths = self._lengths + truth.norm(dim=1).sum()
        self._guessed = self._guessed + guess.norm(dim=1).sum()

    def add(self, other: "Agreement") -> "Agreement":
        """Add the rows of another, as from another process; returns itself."""
        if other._shift is None:
            return self
        self._shift = other._shift if self._shift is None else self._shift
        moved = other._shift - self._shift  # the other's sums are about a centre of its own
        self._square = self._square + other._square + 2 * (other._sum @ moved) + other._rows * moved.square().sum()
        self._sum = self._sum + other._sum + other._rows * moved
        self._rows += other._rows
        self._error = self._error + other._error
        self._cosine = self._cosine + other._cosine
        self._lengths = self._lengths + other._lengths
        self._guessed = self._guessed + other._guessed
        return self

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained, see `fvu`."""
        return float(self._error / (self._square - self._sum.square().sum() / self._rows))

    @property
    def cosine(self) -> float:
        """Mean cosine."""
        return float(self._cosine / self._rows)

    @property
    def norm_ratio(self) -> float:
        """Mean length of the guesses over mean length of the truth."""
        return float(self._guessed / self._lengths)


def fvu(truth: Float[Tensor, "row d"], guess: Float[Tensor, "row d"]) -> float:
    """Fraction of variance unexplained: squared error over squared distance from the mean of each dimension.

    0 is perfect, 1 is as good as the mean. The mean is taken for each dimension; one number for all dimensions, as the
    paper's code has it, makes the denominator larger and the figure prettier.
    """
    return _of(truth, guess).fvu


def mean_cosine(truth: Float[Tensor, "row d"], guess: Float[Tensor, "row d"]) -> float:
    """Mean over rows of the cosine between the two."""
    return _of(truth, guess).cosine


def norm_ratio(truth: Float[Tensor, "row d"], guess: Float[Tensor, "row d"]) -> float:
    """Mean length of the guesses over mean length of the truth; below 1, a map shrinks."""
    return _of(truth, guess).norm_ratio


def _of(truth: Tensor, guess: Tensor) -> Agreement:
    agreement = Agreement()
    agreement.update(truth, guess)
    return agreement
