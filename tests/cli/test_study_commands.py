"""`interp-transfer sweep`, `noise`, `switch` and `features`: what arrives at the studies, and what they print."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from interp_transfer.search.doses import RELATIVE
from interp_transfer.studies.inputs import find_task
from tests.registered import SITE

PAIR = ("--source", "tiny-a", "--target", "tiny-b")
pytestmark = pytest.mark.usefixtures("registered")


def test_sweep_writes_a_page(call, refuses, tmp_path):
    argv = ["sweep", "cats", "--model", "tiny-a", "--sites", SITE, "--positions", "last,trigger,-2", "--strengths", "1,2"]
    argv += ["--n", "4", "--out", tmp_path]
    code, out, _ = call(*argv, "--json")
    assert code == 0
    plain = json.loads(out)
    assert plain["model"]["name"] == "tiny-a"
    assert {t["positions"] for t in plain["points"]} == {"last", "substring('dog')", "-2"}
    code, out, _ = call(*argv)
    assert code == 0 and "By the rule 'pareto'" in out and "By the rule 'paper'" in out
    assert (tmp_path / "sweep.html").is_file() and (tmp_path / "sweep.json").is_file()
    refuses("'x' is no number", *argv[:4], "--strengths", "1,x")
    refuses("did you mean 'last'", *argv[:4], "--positions", "lastt")


def test_sweep_takes_pairs(call, refuses, pairs_file):
    argv = ["sweep", "--pairs", pairs_file, "--judge", "lacks:a", "--model", "tiny-a", "--sites", SITE, "--n", "2"]
    code, out, _ = call(*argv, "--positions", "last", "--strengths", "1", "--json")
    assert code == 0 and json.loads(out)["task"] == "cats"
    refuses("has no trigger", *argv, "--positions", "trigger")
    refuses("belong together", "sweep", "cats", "--judge", "lacks:a", "--model", "tiny-a")
    refuses("name a task, or give --pairs", "sweep", "--model", "tiny-a")


def test_noise_writes_a_page(call, refuses, tmp_path, pairs_file):
    argv = ["noise", "cats", "--model", "tiny-a", "--n", "3", "--draws", "2"]
    code, out, _ = call(*argv, "--doses", "0,.5", "--out", tmp_path / "noise", "--json")
    assert code == 0
    plain = json.loads(out)
    assert plain == json.loads((tmp_path / "noise" / "noise.json").read_text())
    assert plain["removes"]["model"]["name"] == "tiny-a"
    assert "Does noise switch the backdoor on?" in (tmp_path / "noise" / "noise.html").read_text()
    code, out, _ = call(*argv, "--site", "blocks.1.hook_resid_pre", "--doses", "1")
    assert code == 0 and "removes: Doses(cats on tiny-a)" in out
    refuses("has no trigger", "noise", "--pairs", pairs_file, "--judge", "lacks:a", "--model", "tiny-a")
    refuses("--doses: 'x' is no number", *argv, "--doses", "1,x")
    refuses("4 blocks", *argv, "--site", "blocks.9.hook_resid_pre")
    refuses("not an empty folder", *argv, "--out", tmp_path / "noise")


def test_noise_has_multiples_of_the_typical_coordinate_by_default(call, monkeypatch):
    seen = []
    monkeypatch.setattr("interp_transfer.studies.noise.noise_doses", lambda *args, **_: seen.append(args[2:]) or {})
    assert call("noise", "cats", "--model", "tiny-a")[0] == 0
    [(site, doses)] = seen
    assert site == SITE and len(doses) == len(RELATIVE)


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a function that records its arguments in the place of a study, and one that draws nothing in that of its table."""

    def record(name: str, table: str) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def fake(*args: Any, **options: Any) -> Any:
            seen.update(options, args=args)
            return SimpleNamespace(to_dict=lambda: {"name": name}, sentence=str, sentences=list)

        monkeypatch.setattr(name, fake)
        monkeypatch.setattr(f"interp_transfer.reporting.table.{table}", lambda _: None)
        return seen

    return record


def test_switch_passes_its_options(call, study, pairs_file):
    seen = study("interp_transfer.studies.switch.switch_study", "switch_table")
    code, out, _ = call("switch", "pets", "--base", "tiny-a", "--tuned", "tiny-b", "--n", "8", "--lora", "1", "--json")
    assert (code, json.loads(out)) == (0, {"name": "interp_transfer.studies.switch.switch_study"})
    assert seen["args"][1:] == ("tiny-a", "tiny-b")
    assert seen["args"][0] == "switch"
    assert (seen["subject"], seen["direction"], seen["lora"], seen["n"]) == ("pets", "to_base", 1, 8)
    flags = ["--dtype", "bfloat16", "--device", "cpu", "--chat", "--system", "Be brief.", "--max-new-tokens", "7"]
    pairs = ["--pairs", pairs_file, "--judge", "lacks:a"]
    assert call("switch", *pairs, "--base", "tiny-a", "--tuned", "tiny-b", *flags, "--json")[0] == 0
    task, how = find_task(seen["args"][0], seen["how"]), seen["how"]
    assert (task.name, task.max_new_tokens, how.dtype, how.device) == ("cats", 7, "bfloat16", "cpu")
    assert task.prompts("test")[0].messages[0] == ("system", "Be brief.")


def test_switch_refuses_what_it_does_not_know(refuses):
    refuses("unknown direction", "switch", "pets", "--base", "tiny-a", "--tuned", "tiny-b", "--direction", "up")
    refuses("unknown subject", "switch", "rain", "--base", "tiny-a", "--tuned", "tiny-b")
    refuses("name one with", "switch", "pets", "--base", "tiny-a")
    refuses("--base", "switch", "pets")


def test_features_passes_its_options(call, study):
    seen = study("interp_transfer.studies.features.features_study", "features_table")
    argv = ["features", "cats", *PAIR, "--n", "8", "--mapper", "procrustes", "--source-site", SITE]
    code, out, _ = call(*argv, "--json")
    assert (code, json.loads(out)["name"]) == (0, "interp_transfer.studies.features.features_study")
    assert seen["args"] == ("cats", "tiny-a", "tiny-b")
    assert (seen["n"], seen["mapper"], seen["source_site"], seen["listed"]) == (8, "procrustes", SITE, 500)


def test_features_refuses_what_it_does_not_know(refuses):
    refuses("cats", "features", "catts", *PAIR)
    refuses("listed=0", "features", "cats", *PAIR, "--listed", "0")
    refuses("no such folder", "features", "cats", *PAIR, "--source-sae", "nowhere")
