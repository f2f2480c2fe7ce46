"""An organism is loaded by its name without the network, and so is a similar name refused."""

import pytest

from tests.test_network import WORK, run


@pytest.mark.slow
def test_an_organism_and_a_name_that_is_almost_one() -> None:
    done = run(WORK.format(models=["micro-qwen-s"], wrong=["micro-qwen-z"]))
    assert done.stdout.endswith("done\n") and done.returncode == 0, done.stderr
