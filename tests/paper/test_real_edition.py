"""The edition "real": its plan, registered text that shows when it changed, and its measurements on tiny models."""

import json
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from interp_transfer.cli.main import main as cli
from interp_transfer.evaluation.clean_kl import CleanKL
from interp_transfer.evaluation.kept import Kept
from interp_transfer.paper import runner
from interp_transfer.paper.cells import QUICK_N, jobs_of, read_cell
from interp_transfer.paper.experiment import Case, Experiment
from interp_transfer.paper.given import LABELS, statements, xstest
from interp_transfer.paper.kinds import kind
from interp_transfer.paper.measures import real_mapping, real_refusal, truth_probes
from interp_transfer.paper.measures.real_refusal import BASE, COUNTED, MAIN_CASES, refusal_task
from interp_transfer.paper.real_page import reproduce_real
from interp_transfer.paper.registered import MOST_HOURS, MOST_MINUTES, REGISTERED, plan, pretrained, read_real
from interp_transfer.paper.rows import value_of
from interp_transfer.paper.setup import Setup
from interp_transfer.stats import Estimate, rate
from interp_transfer.studies import controls
from tests.paper.given_data import WORDS, instructions, write_csv
from tests.paper.test_reproduce import in_this_process
from tests.paper.test_token_means import SITES as TWO
from tests.paper.test_token_means import paired

DOCS = Path(__file__).parents[2] / "docs"
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
QUOTED = ("people", "rules", "rules, cut", "phrases", "openings", "embeddings")
SITES = ["blocks.1.hook_resid_pre", "blocks.1.hook_resid_pre"]


def setup_with(data: Path | None, n: int) -> Setup:
    made = Setup("real", n, 0)
    made.data = data
    return made


def test_every_experiment_is_registered_and_the_plan_keeps_its_limits():
    cases = plan(list(pretrained().values()))
    assert sum(case["minutes"] for case in cases) <= 60 * MOST_HOURS
    assert max(case["minutes"] for case in cases) <= MOST_MINUTES
    assert all(case["n"] >= 100 for case in cases)
    for one in pretrained().values():
        assert all(one.registered[name] for name in REGISTERED)
    quick = plan(list(pretrained().values()), quick=True)
    assert {case["n"] for case in quick} == {QUICK_N}
    assert sum(case["minutes"] for case in quick) <= 30
    jobs_of(list(pretrained().values()), "real")  # every kind takes the settings of its cases


def test_the_plan_is_printed(capsys: pytest.CaptureFixture[str]):
    cli(["reproduce", "--edition", "real", "--plan", "--json", "probes"])
    plain = json.loads(capsys.readouterr().out)
    assert len(plain["cases"]) == 12 and plain["hours"] < 2
    cli(["reproduce", "--edition", "real", "--plan"])
    printed = capsys.readouterr().out
    assert "cannot be run yet" in printed and "hours on two cores" in printed
    assert cli(["reproduce", "--plan"]) == 2
    assert "edition real" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "why"), [([], "--data is missing"), (["--data", "nowhere"], "'nowhere' is no folder")])
def test_data_that_are_missing_are_noticed_before_a_model_is_loaded(
    given: list[str], why: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    assert cli(["reproduce", "--edition", "real", "probes", "--out", str(tmp_path / "out"), *given]) == 2
    assert why in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("minutes = 1", "minutes = 46"), "split it"),
        (("claim = ", "claims = "), "claim"),
        (('not_real = "no"', 'not_real = "no"\n[case.real]\njudge = "rules"'), "not both"),
        (('not_real = "no"', '[case.real]\njudge = "rules"'), "no kind"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, change: tuple[str, str], why: str):
    text = 'order = 1\ntitle = "t"\nclaim = "c"\nthreshold = "h"\nrule = "r"\nchosen = "s"\nn = 100\n'
    text += '[[case]]\nname = "one"\nminutes = 1\nnot_real = "no"\n'
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    assert read_real(file).cases[0].reasons == {"real": "no"}
    file.write_text(text.replace(*change))
    with pytest.raises(ValueError, match=why):
        read_real(file)


def of_judges(*names: str) -> Experiment:
    whole = pretrained()["judges"]
    return replace(whole, cases=tuple(case for case in whole.cases if case.name in names))


def test_judges_are_measured_and_a_text_that_was_changed_later_shows(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runner, "_finished", in_this_process)
    one = of_judges("two people", "rules", "guard: Llama-Guard-3-8B")
    done = reproduce_real([one], tmp_path, data=data, progress=False)
    assert not done.failures and done.verdicts["judges"].agrees == "yes"
    page = done.page.read_text()
    assert one.registered["rule"] in page and "reached" in page and one.registration in page
    assert "Llama-Guard-3-8B: its weights" in page and "1 of 3 cases were not run" in page
    assert "was changed after" not in page
    [row, *_] = done.cells["judges", "rules"].rows
    assert row["kappa"] == Estimate(1.0, 1.0, 1.0, 20) and row["three-way kappa"] == Estimate(1.0, 1.0, 1.0, 20)
    later = replace(one, registered={**one.registered, "threshold": "a lower one"})
    again = reproduce_real([later], tmp_path, data=None, progress=False)  # nothing is measured again
    assert "**The registered text was changed after these cases were measured**: two people, rules." in again.page.read_text()


def test_data_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runner, "_finished", in_this_process)
    failed = reproduce_real([of_judges("rules")], tmp_path, data=None, progress=False)
    assert "give --data DIR with a folder xstest" in failed.failures["judges", "rules"]
    assert "Not run" in failed.page.read_text() and failed.verdicts["judges"].agrees == "not run"
    (tmp_path / "xstest").mkdir()
    with pytest.raises(ValueError, match="holds no completions"):
        xstest(tmp_path)
    write_csv(
        tmp_path / "xstest" / "completions_x.csv", [{"id": "v2-1", "prompt": "p", "completion": "c", "annotation_1": "?"}]
    )
    with pytest.raises(ValueError, match="row 2"):
        xstest(tmp_path)


def test_labels_and_splits_of_the_data(data: Path):
    known = xstest(data)
    assert len(known) == 40 and {one.labels[2] for one in known} == set(LABELS.values())
    assert {one.number % 2 for one in known if one.tuning} == {1}
    for topic in ("cities", "companies_true_false", "sp_en_trans", "larger_than"):
        train, test = (statements(data, topic, split) for split in ("train", "test"))
        about = [
            {text.split(" is ")[0].split("' means")[0].split(" sells")[0] for side in part for text in side}
            for part in (train, test)
        ]
        assert about[0] and about[1] and not about[0] & about[1], topic
        assert all("hill" in text for text in train[0]) and all("lake" in text for text in train[1])


def test_nothing_that_a_statement_of_the_test_is_about_is_trained_on(tmp_path: Path):
    (tmp_path / "truth").mkdir()
    names = range(40)
    two = [
        {"statement": f"{a} is larger than {b}.", "label": int(a > b), "n1": a, "n2": b} for a in names for b in names if a != b
    ]
    write_csv(tmp_path / "truth" / "larger_than.csv", two)
    verbs = ("operates in oil.", "has headquarters in Peru.", "is a holding company, which engages in oil.", "provides oil.")
    firms = [{"statement": f"Bank of {n} {verb}", "label": n % 2} for n in names for verb in verbs]
    write_csv(tmp_path / "truth" / "companies_true_false.csv", [*firms, {"statement": "Oil.", "label": 0}])
    for topic in ("larger_than", "companies_true_false"):
        parts = [[text for side in statements(tmp_path, topic, split) for text in side] for split in ("train", "test")]
        about = [{number for text in part for number in re.findall(r"\d+", text)} for part in parts]
        assert about[0] and about[1] and not about[0] & about[1], topic
    assert sum(map(len, parts)) == len(firms), "every name that is recognized is in one split"


def test_probes_of_truth_on_tiny_models(data: Path, folder: Any):
    rows = truth_probes.measure(setup_with(data, 8), str(folder("llama")), str(folder("qwen2")), SITES, dtype="float32")
    kinds = {(row["topic"], row["fitted on"]) for row in rows}
    assert len(kinds) == 2 * 4 + 1 and ("harm", "the other topics") not in kinds
    assert {row["probe"] for row in rows} >= {"home", "back", "forward", "shuffled back", "random"}
    found = truth_probes.verdict({"llama to qwen2": rows})
    assert "of 1 pairs" in found.sentence and "home" in found.details[0]


def test_where_a_topic_is_left_out_nothing_has_read_it(data: Path):
    texts = truth_probes._texts(setup_with(data, 8), ["larger_than", "sp_en_trans"], "cities")
    assert not any("city" in text for text in [*texts.texts, *texts.train[0], *texts.train[1]])
    assert all("city" in text for text in [*texts.test[0], *texts.test[1], *texts.clean])
    assert not set(texts.clean) & set(texts.test[1])
    assert all("hill" in text for text in texts.test[0]) and all("lake" in text for text in texts.test[1])


def test_the_task_of_refusal_keeps_its_splits_apart(data: Path, tmp_path: Path):
    task = refusal_task(setup_with(data, 6), "ablate", ["jailbreakbench", "advbench"])
    asked = [str(prompt) for prompt in task.prompts("test")]
    assert len(asked) == 6 and sum("advbench" in text for text in asked) == 3
    assert all("of train" in str(side) for pair in task.contrast("train") for side in (pair.positive, pair.negative))
    assert all("Paint" in str(pair.positive) for pair in task.contrast("train"))
    read = {str(side) for pair in task.contrast("train") for side in (pair.positive, pair.negative)}
    mapped = [str(text) for text in task.texts("train")]
    assert len(read) == 16 and len(mapped) == 24 and not read & set(mapped), "maps see no prompt of the contrast"
    again = shutil.copytree(data, tmp_path / "data")
    instructions(again / "refusal" / "harmbench_test.json", [f"Steal the {word} of jailbreakbench." for word in WORDS])
    with pytest.raises(ValueError, match="no harmbench_test"):
        refusal_task(setup_with(again, 6), "ablate", ["jailbreakbench", "harmbench_test"])
    induce = refusal_task(setup_with(data, 6), "induce")
    assert all("Paint" in str(prompt) for prompt in induce.prompts("test"))
    with pytest.raises(ValueError, match="ablate, induce"):
        refusal_task(setup_with(data, 6), "both")


@pytest.mark.slow
def test_refusal_on_tiny_models(data: Path, folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(real_refusal, "TOKENS", 2)
    source, target = (str(shutil.copytree(folder(family), tmp_path / family)) for family in ("llama", "qwen2"))
    for name in (source, target):
        (Path(name) / "chat_template.jinja").write_text(TEMPLATE)
    setup = setup_with(data, 4)
    setup.kept = Kept(tmp_path / "kept")
    how: dict[str, Any] = {"directions": 2, "dtype": "float32", "conditions": ["random", "untrained", "mean_ablated"]}
    rows = real_refusal.measure(setup, source, target, SITES, tests=["advbench"], **how)
    names = [row["condition"] for row in rows]
    assert names == ["unsteered", "system prompt", "native", "moved", "random", "untrained", "mean ablated"]
    counted = {row["condition"]: row[COUNTED] for row in rows}
    assert counted["random"] is None and sum(map(int, str(counted["moved"]).split("/"))) == 4

    def fails(*_: Any, **__: Any) -> None:
        raise AssertionError("another test set shares mappers, strengths and costs with the first")

    monkeypatch.setattr(controls, "fit", fails)
    monkeypatch.setattr(CleanKL, "__call__", fails)
    again = real_refusal.measure(setup, source, target, SITES, tests=["harmbench_test"], **how)
    for first, second in zip(rows, again, strict=True):
        assert (first["strength"], first["clean KL"]) == (second["strength"], second["clean KL"])


def refusal_rows(moved: int, random: int, unsteered: int = 20, strength: str = "1.2") -> list[dict[str, Any]]:
    """100 prompts, of which native answers 90."""
    shares = {"unsteered": unsteered, "native": 90, "moved": moved, "random": random}
    counts = {"moved": f"{min(moved, 90)}/{max(moved - 90, 0)}/{max(90 - moved, 0)}/{min(100 - moved, 10)}"}
    return [
        {
            "condition": name,
            "strength": "-" if name == "unsteered" else strength,
            "success": rate([k < share for k in range(100)]),
            COUNTED: counts.get(name),
            BASE: rate([k < unsteered for k in range(100)]),
        }
        for name, share in shares.items()
    ]


@pytest.mark.parametrize(("moved", "random", "answer"), [(90, 25, "yes"), (90, 60, "in part"), (40, 60, "no")])
def test_the_rule_for_refusal_is_the_registered_one(moved: int, random: int, answer: str):
    assert kind("real_refusal").verdict({case: refusal_rows(moved, random) for case in MAIN_CASES}).agrees == answer
    missing = {case: refusal_rows(moved, random) for case in MAIN_CASES[1:]}
    assert kind("real_refusal").verdict(missing).agrees == "cannot tell"
    nothing_to_move = {case: refusal_rows(moved, random, unsteered=85) for case in MAIN_CASES}
    assert kind("real_refusal").verdict(nothing_to_move).agrees == "cannot tell"
    mixed = {case: refusal_rows(moved, random, strength=f"{k // 2}") for k, case in enumerate(MAIN_CASES)}
    assert "different strengths" in kind("real_refusal").verdict(mixed).sentence


def test_the_cases_that_decide_are_there():
    assert set(MAIN_CASES) <= {case.name for case in pretrained()["refusal"].cases}
    unknown = Case("x", {"real": {"judge": "rules", "what": 1}})
    with pytest.raises(ValueError, match="unknown settings"):
        jobs_of([replace(of_judges("rules"), cases=(unknown,))], "real")


def test_the_page_is_what_the_submitted_cells_give(tmp_path: Path):
    cells = DOCS / "results"
    known = list(pretrained().values())
    assert any(read_cell(job, cells) is not None for job in jobs_of(known, "real"))
    reproduce_real(known, cells, data=None, page=tmp_path / "REAL.md", measure=False)
    assert (tmp_path / "REAL.md").read_text() == (DOCS / "REAL.md").read_text()
    files = [{file.relative_to(at): file.read_text() for file in at.glob("*/*")} for at in (tmp_path / "real", DOCS / "real")]
    assert files[0] == files[1] and files[0]


def test_the_page_of_judges_quotes_the_cells():
    text = (DOCS / "judge_accuracy.md").read_text()
    jobs = [job for job in jobs_of([pretrained()["judges"]], "real") if job.settings["judge"] in QUOTED]
    for job in jobs:
        cell = read_cell(job, DOCS / "results")
        assert cell is not None, job.case.name
        held_out, tuned, _ = cell.rows
        quoted = [held_out["kappa"]] + ([tuned["kappa"]] if job.settings["judge"] == "rules" else [])
        for figure in quoted:
            assert isinstance(figure, Estimate)
            assert f"{figure.value:.3f}".removeprefix("0") in text, (job.case.name, figure)


def test_massive_rows_are_left_out_of_what_is_unexplained():
    x, y = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(0))
    x[3] *= 1000
    y[[3, 7]] *= 1000
    kept = real_mapping._ordinary(paired(x, y, torch.arange(40)), TWO)
    assert kept.target_token.tolist() == [n for n in range(40) if n not in (3, 7)]
    assert all(float(rows.norm(dim=1).max()) < 100 for side in (kept.source, kept.target) for rows in side.values())


def test_maps_on_text_of_another_kind_on_tiny_models(data: Path, folder: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(real_mapping, "TOKENS", 4)
    monkeypatch.setattr(real_mapping, "NUMBERS", (150, 100_000))
    pairs = [SITES, ["blocks.2.hook_resid_pre", "blocks.1.hook_resid_pre"]]
    setup = setup_with(data, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few rows
        rows = real_mapping.measure(setup, str(folder("qwen2")), str(folder("qwen2")), pairs, texts=20, dtype="float32")
    by_number = [row for row in rows if "class of tokens" not in row and "KL recovered" not in row]
    tokens = [int(str(row["tokens"])) for row in by_number]
    assert tokens == sorted(set(tokens))
    assert value_of(by_number[-1], "FVU, other data") < value_of(by_number[0], "FVU, other data")
    classes = {str(row["class of tokens"]): row["rows"] for row in rows if "class of tokens" in row}
    assert {"first", "last", "rest", "rarest quarter", "most frequent quarter"} <= set(classes)
    assert classes["first"] == classes["last"] == 6, "a row for each prompt"
    whole, rows = rows, [row for row in rows if "KL recovered" in row]
    assert [row["map"] for row in rows] == [name for name in (*real_mapping.KINDS, real_mapping.SHUFFLED) for _ in pairs]
    run = [row for row in rows if row["KL recovered"] is not None]
    assert len(run) == len(real_mapping.KINDS) + 1, "the layer is replaced at one pair of sites of each map"
    for name in real_mapping.KINDS:
        held_out = {row["KL recovered"] is not None: value_of(row, "FVU") for row in rows if row["map"] == name}
        assert held_out[True] <= held_out[False]
    assert all(list(row) == list(rows[0]) for row in rows)
    answer = real_mapping.verdict({"Qwen 0.5B to Qwen 1.5B": whole, "SmolLM2 to Qwen 0.5B": whole})
    assert answer.agrees == "cannot tell" and "of 1 pairs within Qwen; 2 decide" in answer.sentence
    both = real_mapping.verdict({"Qwen 0.5B to Qwen 1.5B": whole, "Qwen 1.5B to Qwen 0.5B": whole})
    assert "in 2 of 2" in both.sentence or "in 0 of 2" in both.sentence
    good, bad = ({"map": name, "KL recovered": kl} for name, kl in zip(real_mapping.KINDS, (0.9, 0.7), strict=True))
    other = {"map": real_mapping.SHUFFLED, "KL recovered": 0.3, "FVU": 1.0, "KL": 2.0}
    for fvu, agrees in ((0.2, "yes"), (0.4, "no")):  # that of the map that recovers more; the other has .3
        rows = [{**good, "FVU": fvu, "KL": 1.0}, {**bad, "FVU": 0.3, "KL": 1.5}, other]
        found = real_mapping.verdict({"Qwen 0.5B to Qwen 1.5B": rows, "Qwen 1.5B to Qwen 0.5B": rows})
        assert found.agrees == agrees, "the kind of map is not chosen by what decides"
    assert real_mapping.verdict({"SmolLM2 to Qwen 0.5B": rows}).agrees == "cannot tell"


def test_the_readme_says_what_the_cells_give():
    experiment = pretrained()["refusal"]
    known = {job.case.name: read_cell(job, DOCS / "results") for job in jobs_of([experiment], "real")}
    rows = {name: list(cell.rows) for name, cell in known.items() if cell is not None}
    found, text = real_refusal.verdict(rows), (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert found.agrees == "in part" and "reached in part" in text
    difference, share = re.findall(r"native: (\S+ \[.*?\]).*have (\S+) of", found.sentence)[0]
    assert f"moved minus native {difference}" in text and f"{share} of the native vector's effect" in " ".join(text.split())
    for name, words in (("moved", "moved vector"), ("native", "own"), ("unsteered", "unsteered")):
        shares = [value_of(row, "success") for case in MAIN_CASES for row in rows[case] if row["condition"] == name]
        assert f"{words} {sum(shares) / 3:.2f}" in " ".join(text.split())
