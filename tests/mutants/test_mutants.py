"""Every fault of the list can still be made, and its tests are there."""

import pytest

from tests.mutants.run import ROOT, mutants


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant["name"])
def test_a_fault_changes_one_place(mutant: dict) -> None:
    assert (ROOT / mutant["file"]).read_text("utf-8").count(mutant["old"]) == 1 and mutant["old"] != mutant["new"]
    assert all((ROOT / test).exists() for test in mutant["tests"])
