"""While the tests run, the package's functions check the types of their arguments, and their shapes where they have any."""

import jaxtyping
import pytest
import torch
from beartype.roar import BeartypeCallHintViolation

from interp_transfer.activations.agreement import fvu
from interp_transfer.names import did_you_mean


def test_axes_are_compared_between_arguments() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        fvu(torch.zeros(3, 4), torch.zeros(3, 5))


def test_types_are_checked_where_nothing_has_a_shape() -> None:
    with pytest.raises(BeartypeCallHintViolation):
        did_you_mean("name", ["names"], n="three")  # type: ignore[arg-type]
