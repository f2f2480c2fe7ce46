"""The edition "real": sites that steer, costs elsewhere and features of SAEs, on tiny models."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from interp_transfer.evaluation.kept import Kept
from interp_transfer.evaluation.ready import trait_task
from interp_transfer.evaluation.sae_quality import fit_of
from interp_transfer.features.sae import load_sae
from interp_transfer.paper.charts import Dots
from interp_transfer.paper.given import safe_prompts
from interp_transfer.paper.kinds import kind
from interp_transfer.paper.measures import real_cost, real_layers, real_refusal, real_sae
from interp_transfer.paper.registered import plan, pretrained
from interp_transfer.paper.rows import Row, estimate_of, value_of
from interp_transfer.stats import Estimate, rate
from tests.paper.given_data import write_csv
from tests.paper.test_real_edition import SITES, TEMPLATE, setup_with


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory, folder: Any) -> Any:
    """Checkpoints with a chat template, and a context that holds long prompts."""
    root, made = tmp_path_factory.mktemp("chats"), {}

    def get(family: str) -> str:
        if family not in made:
            made[family] = shutil.copytree(folder(family), root / family)
            (made[family] / "chat_template.jinja").write_text(TEMPLATE)
            config = json.loads((made[family] / "config.json").read_text())
            (made[family] / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 512}))
        return str(made[family])

    return get


def check_sweep(rows: list[Row], blocks: list[Any]) -> None:
    swept, choices = [row for row in rows if "block" in row], [row for row in rows if "predictor" in row]
    assert [row["block"] for row in swept] == ["unsteered", *blocks]
    best = max(value_of(row, "intact") for row in swept[1:])
    for row in choices:
        if row["loses"] is not None:
            there = [value_of(one, "intact") for one in swept if str(one["block"]) in str(row["its block"]).split(", ")]
            assert value_of(row, "best intact") == best
            assert value_of(row, "loses") == pytest.approx(best - sum(there) / len(there))
    assert [row["predictor"] for row in choices] == ["attribution", "probe", "depth"]


@pytest.mark.slow
def test_blocks_of_a_tiny_model_are_swept_and_predicted(data: Path, chats: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(real_layers, "TOKENS", 4)
    monkeypatch.setattr(real_layers, "EVERY", 1)
    rows = real_layers.measure(setup_with(data, 4), chats("qwen2"), dtype="float32")
    check_sweep(rows, [1, 2, 3])
    [depth] = [row for row in rows if row.get("predictor") == "depth"]
    assert depth["its block"] == "2", "block 2 of 4 is the nearest to three fifths"
    assert all(value_of(row, "clean KL") < 0.6 for row in rows if "block" in row), "within the budget, about"
    how: dict[str, Any] = {"plain": True, "method": "robust", "dtype": "float32"}
    plain = real_layers.measure(setup_with(None, 4), chats("llama"), ["cheerful", "gloomy"], **how)
    check_sweep(plain, [1, 2, 3])


def test_a_model_without_a_chat_format_reads_plain_texts():
    task, plain = trait_task("cheerful", "gloomy"), real_layers.bare(trait_task("cheerful", "gloomy"))
    [asked] = task.prompts("test")[:1]
    assert plain.prompts("test")[0] == f"Question: {asked.messages[0][1]}\nAnswer:"
    pair, other = task.contrast("train")[0], plain.contrast("train")[0]
    assert str(other.positive).startswith(f"{pair.positive.messages[0][1]}\n\nQuestion: ")  # type: ignore[union-attr]
    assert other.positive != other.negative


def sweep_rows(attribution: float, probe: float, depth: float = 0.5, best: float = 0.9) -> list[Row]:
    found = {"attribution": attribution, "probe": probe, "depth": depth}
    swept = [{"block": name, "intact": rate([k < 10 * x for k in range(10)])} for name, x in (("unsteered", 0.1), (3, best))]
    chosen = {"its block": "3", "best intact": best, "rank correlation": None}
    return [*swept, *({"predictor": k, "intact there": x, "loses": best - x, **chosen} for k, x in found.items())]


def test_the_rule_for_sites_is_the_registered_one():
    def answer(*found: tuple[float, float]) -> str:
        return kind("real_layers").verdict({str(k): sweep_rows(*one) for k, one in enumerate(found)}).agrees

    good, one, bad = (0.8, 0.85), (0.8, 0.7), (0.7, 0.7)  # the best block has .9
    assert answer(good, good, good, bad) == "yes"
    assert answer(one, good, good, bad) == "in part"
    assert answer(one, one, bad, bad) == "no"
    assert answer(good, good) == "cannot tell", "two more models may decide"
    assert answer(good, good, good) == "yes" and answer(bad, bad) == "no"
    drawn = real_layers.chart({"one": sweep_rows(*good)})
    assert isinstance(drawn, Dots) and {name: one.value for name, one in drawn.cases["one"].items()} == pytest.approx(
        {"unsteered": 0.1, "best block": 0.9, "attribution": 0.8, "probe": 0.85, "depth": 0.5}
    )


def test_safe_prompts_are_read_and_a_damaged_file_is_named(data: Path, tmp_path: Path):
    assert len(safe_prompts(data)) == 10 and all("kill" in text for text in safe_prompts(data))
    write_csv(tmp_path / "xstest_prompts.csv", [{"id": 1}])
    (tmp_path / "xstest").mkdir()
    (tmp_path / "xstest_prompts.csv").rename(tmp_path / "xstest" / "xstest_prompts.csv")
    with pytest.raises(ValueError, match="no column 'label'"):
        safe_prompts(tmp_path)


@pytest.mark.slow
def test_costs_on_tiny_models_are_at_the_strengths_of_refusal(
    data: Path, chats: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(real_refusal, "TOKENS", 8)
    monkeypatch.setattr(real_cost, "RANDOM_PROMPTS", 1)
    setup = setup_with(data, 8)
    setup.kept = Kept(tmp_path / "unfinished")
    pair = chats("llama"), chats("qwen2"), SITES
    refused = real_refusal.measure(setup, *pair, tests=["advbench"], directions=2, dtype="float32")
    files = set((tmp_path / "unfinished").iterdir())
    graphs, real = [], real_cost.predicted
    monkeypatch.setattr(real_cost, "predicted", lambda *a, **k: graphs.append(found := real(*a, **k)) or found)
    rows = {row["condition"]: row for row in real_cost.measure(setup, *pair, directions=2, dtype="float32")}
    searched = {path for path in set((tmp_path / "unfinished").iterdir()) - files if path.name.startswith("costs")}
    assert not searched, "nothing was searched again"
    assert graphs and not any(found.requires_grad for found in graphs), "a graph of gradients would fill the memory"
    for row in refused:
        if row["condition"] in ("native", "moved"):
            assert rows[row["condition"]]["strength"] == row["strength"]
    assert list(rows)[:5] == ["unsteered", "native", "moved", "random", "full replacement"]
    for what in (*real_cost.DECIDE, real_cost.LENGTH, real_cost.CIRCLES):
        for one, other in real_cost.COMPARED:
            difference = estimate_of(rows[f"{one} minus {other}"], what)
            apart = value_of(rows[one], what) - value_of(rows[other], what)
            assert difference.value == pytest.approx(apart, abs=1e-5) and difference.low <= difference.value <= difference.high
            assert difference.n == estimate_of(rows[one], what).n
    assert value_of(rows["moved minus unsteered"], real_cost.ALPACA) != 0
    drawn = real_cost.chart({"one": list(rows.values())})
    assert isinstance(drawn, Dots) and len(drawn.cases) == 3
    assert all(list(each) == list(rows)[:5] for each in drawn.cases.values())


def cost_rows(*differences: float) -> list[Row]:
    found: Row = dict(zip(real_cost.DECIDE, (Estimate(x, x - 0.1, x + 0.1, 100) for x in map(float, differences)), strict=True))
    compared = ("moved minus native", "random minus native", "moved minus unsteered")
    return [{"condition": name, "strength": "-", **found} for name in compared]


def test_the_rule_for_costs_is_the_registered_one():
    def answer(*found: list[Row]) -> str:
        return kind("real_cost").verdict({str(k): rows for k, rows in enumerate(found)}).agrees

    good, one_off = cost_rows(0.03, -0.03, 0, 0.01, 0), cost_rows(0, 0, 0, 0, -0.04)
    bad = cost_rows(0.04, 0.05, -0.2, 0.04, 0.2)
    assert answer(good, good) == "yes" and answer(good, one_off) == "in part" and answer(bad, bad) == "no"
    assert answer(good) == "cannot tell", "the other pair is missing"


def test_a_quick_run_is_planned_by_its_own_minutes():
    [case] = [case for case in pretrained()["cost"].cases if case.quick]
    [quick] = plan([pretrained()["cost"]], quick=True)
    assert quick["minutes"] == case.quick_minutes != case.minutes
    assert case.minutes in [one["minutes"] for one in plan([pretrained()["cost"]])]


def test_what_is_searched_for_costs_is_what_a_case_of_refusal_has_kept():
    """So it is for the recipes beside ours: outcomes are kept by all that are measured together."""

    def searched(real: Mapping[str, Any]) -> Any:
        kept = [x for x in real.get("conditions", ["random"]) if x != real_refusal.ABLATED]
        return real["source"], real["target"], real["sites"], kept, real.get("directions", real_refusal.DIRECTIONS)

    known = [searched(case.settings["real"]) for case in pretrained()["refusal"].cases if "induce" not in case.name]
    also = [*pretrained()["cost"].cases, *(case for case in pretrained()["rival"].cases if "refusal" in case.name)]
    assert len(also) == 4
    for case in also:
        assert searched(case.settings["real"]) in known, case.name


@pytest.mark.slow
def test_features_of_tiny_saes_are_moved_both_ways(data: Path, chats: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, few in (("TRAIN", 6), ("CANDIDATES", 4), ("CHOSEN", 2), ("ANSWER", 4), ("EXAMPLES", 10), ("MAP_TEXTS", 20)):
        monkeypatch.setattr(real_sae, name, few)
    setup = setup_with(data, 4)
    setup.kept = Kept(tmp_path / "unfinished")
    models = [chats("llama"), chats("qwen2")]
    how: dict[str, Any] = {"k": 4, "batch_size": 32, "epochs": 2}
    rows = real_sae.measure(setup, models, SITES, tokens=1500, recipe=how, dtype="float32")
    saes, features = [row for row in rows if "SAE of" in row], [row for row in rows if "feature" in row]
    assert len(saes) == 2 and all(0 < value_of(row, "tokens") <= 1500 and row["passes"] == 2 for row in saes)
    assert {row["behaviour"] for row in features} == {"refusal", "code", "cheerful"}
    assert len({(row["from"], row["to"]) for row in features}) == 2
    assert all(estimate_of(row, "effect moved").n <= 4 and "promotes" in str(row["label"]) for row in features)
    monkeypatch.setattr(real_sae, "train_sae", None)
    texts, recipe = real_sae._texts(setup), real_sae.Recipe("topk", 4, **how)
    _, again = real_sae._trained(setup, real_sae.load_model(models[0], dtype="float32"), SITES[0], texts, 1500, recipe)
    assert again == saes[0], "an SAE that was trained is kept"

    read: list[Any] = []
    monkeypatch.setattr(real_sae, "fit_of", lambda sae, rows: read.append(rows.norm(dim=1).tolist()) or fit_of(sae, rows))
    for limit in (1e9, 2.0):
        monkeypatch.setattr(real_sae, "load_sae", lambda *a, limit=limit, **k: replace(load_sae(*a, **k), longest=limit))
        real_sae._trained(setup, real_sae.load_model(models[0], dtype="float32"), SITES[0], texts, 1500, recipe)
    assert read[1] == [x for x in read[0] if x <= 2.0] and 0 < len(read[1]) < len(read[0]), "massive ones are left out"


def feature_rows(
    *kept: float,
    way: tuple[str, str] = ("a", "b"),
    over: float = 0.2,
    over_there: float = 0.2,
    above: str = "20 of 20",
    wide: float = 0.1,
) -> list[Row]:
    """Features whose effect at home is 1, and what is left of it."""
    spread = {"over random": over, "moved over random": over_there}
    home: Row = {"effect at home": Estimate(1.0, 0.8, 1.2, 100), "above": above, "moved above": above}
    home |= {name: Estimate(x, x - 0.1, x + 0.1, 100) for name, x in spread.items()}
    home["moved over shuffled"] = Estimate(0.2, 0.2 - wide, 0.2 + wide, 100)
    first = {"behaviour": "code", "from": way[0], "to": way[1]}
    moved = [{"effect moved": Estimate(x, x - 0.1, x + 0.1, 100)} for x in kept]
    return [{**first, "feature": k, **home, **one} for k, one in enumerate(moved)]


def test_the_rule_for_features_is_the_registered_one():
    def answer(*rows: list[Row]) -> str:
        return kind("real_sae").verdict({"case": [row for part in rows for row in part]}).agrees

    back = ("b", "a")
    assert answer(feature_rows(0.5, 0.4), feature_rows(0.9, 0.1, way=back)) == "yes", "two of four"
    assert answer(feature_rows(0.6, 0.4), feature_rows(0.1, 0.1, way=back)) == "in part", "half of them in one direction"
    assert answer(feature_rows(0.6, 0.4, 0.4), feature_rows(0.1, way=back)) == "no"
    unclear = feature_rows(0.9, over=0.05)
    assert answer(feature_rows(0.9, over_there=0.05)) == "no", "a random direction does as much where it is moved to"
    assert answer(unclear) == "cannot tell", "the effect at home is not above random's"
    assert answer(feature_rows(0.9, above="19 of 20")) == "cannot tell", "one random direction does as much"
    assert answer(feature_rows(0.9, wide=0.3)) == "no", "a map of shuffled pairs does as much"
    assert answer(feature_rows(0.1), unclear) == "no", "what has no effect at home is not counted"
    drawn = real_sae.chart({"case": feature_rows(0.6, 0.4)})
    assert isinstance(drawn, Dots) and drawn.cases["a to b"]["code"] == rate([True, False])
