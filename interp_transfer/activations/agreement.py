"""How well approximated rows agree with true ones: FVU, cosine and norm ratio, of all rows or in one pass over blocks."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class RowAgreement:
    """Figures of each row, in float64, from which those of any set of rows are summed.

    Attributes:
        error: squared distance of the guess from the truth.
        cosine: cosine between the two.
        length: length of the true row.
        guessed_length: length of the guess.
    """

    error: Float[Tensor, " row"]
    cosine: Float[Tensor, " row"]
    length: Float[Tensor, " row"]
    guessed_length: Float[Tensor, " row"]


def row_agreement(truth: Float[Tensor, "row d"], guess: Float[Tensor, "row d"]) -> RowAgreement:
    """Compare each row with its guess."""
    truth, guess = truth.double(), guess.double()
    cosine = torch.nn.functional.cosine_similarity(truth, guess, dim=1)
    return RowAgreement((truth - guess).square().sum(dim=1), cosine, truth.norm(dim=1), guess.norm(dim=1))


class Agreement:
    """Running sums over rows, in float64."""

    def __init__(self) -> None:
        self._rows = 0
        self._shift: Tensor | None = None  # near the mean, so that large means cost no digits
        self._sum = self._square = self._error = self._cosine = self._length = self._guessed_length = torch.zeros(())

    def update(self, truth: Float[Tensor, "row d"], guess: Float[Tensor, "row d"]) -> None:
        """Add rows."""
        if not len(truth):
            return
        truth = truth.double()
        self._shift = truth.mean(dim=0) if self._shift is None else self._shift
        centred, rows = truth - self._shift, row_agreement(truth, guess)
        self._rows += len(truth)
        self._sum = self._sum + centred.sum(dim=0)
        self._square = self._square + centred.square().sum()
        self._error = self._error + rows.error.sum()
        self._cosine = self._cosine + rows.cosine.sum()
        self._length = self._length + rows.length.sum()
        self._guessed_length = self._guessed_length + rows.guessed_length.sum()

    def add(self, other: "Agreement") -> "Agreement":
        """Add the rows of another, such as another rank's; return itself."""
        if other._shift is None:
            return self
        self._shift = other._shift if self._shift is None else self._shift
        moved = other._shift - self._shift  # the other's sums are about a centre of its own
        self._square = self._square + other._square + 2 * (other._sum @ moved) + other._rows * moved.square().sum()
        self._sum = self._sum + other._sum + other._rows * moved
        self._rows += other._rows
        self._error = self._error + other._error
        self._cosine = self._cosine + other._cosine
        self._length = self._length + other._length
        self._guessed_length = self._guessed_length + other._guessed_length
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
        return float(self._guessed_length / self._length)


def fvu(truth: Float[Tensor, "row d"], guess: Float[Tensor, "row d"]) -> float:
    """Return the fraction of variance unexplained: squared error over squared distance from the mean of each dimension.

    0 is perfect, 1 is as good as the mean. The mean is taken for each dimension. The paper's code takes one mean for all
    dimensions, which increases the denominator and improves the figure.
    """
    return _of(truth, guess).fvu


def mean_cosine(truth: Float[Tensor, "row d"], guess: Float[Tensor, "row d"]) -> float:
    """Return the mean over rows of the cosine between the two."""
    return _of(truth, guess).cosine


def norm_ratio(truth: Float[Tensor, "row d"], guess: Float[Tensor, "row d"]) -> float:
    """Return the mean length of the guesses over the mean length of the truth; below 1, a map shrinks."""
    return _of(truth, guess).norm_ratio


def _of(truth: Tensor, guess: Tensor) -> Agreement:
    agreement = Agreement()
    agreement.update(truth, guess)
    return agreement
