"""`interp-transfer run` and `report` on two tiny models."""

import html
import json
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import interp_transfer as it
from interp_transfer.activations.align import DEFAULT_STRATEGY
from interp_transfer.cli.options import with_flags
from interp_transfer.evaluation.baselines import RANDOM_DIRECTIONS
from interp_transfer.mapping.kinds import KINDS
from interp_transfer.mapping.move import DEFAULT_MODE, DEFAULT_NORM
from interp_transfer.studies.inputs import find_task
from interp_transfer.studies.options import QUICK as LESS
from interp_transfer.studies.options import RunOptions
from tests.registered import SITE

PAIR = ("--source", "tiny-a", "--target", "tiny-b")
QUICK = ("--n", "2", "--mapper", "affine", "--directions", "2", "--seeds", "1", "--no-variants", "--no-side-effects")


@pytest.fixture
def options_of(monkeypatch: pytest.MonkeyPatch, call: Any) -> Any:
    """The arguments that a command line passes to the pipeline."""

    def of(*argv: object) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def pipeline(task: Any, source: Any, target: Any, **options: Any) -> None:
            seen.update(options, task=task, source=source, target=target)
            raise ValueError("seen")

        monkeypatch.setattr("interp_transfer.studies.run.run", pipeline)
        assert call("run", *argv)[2] == "error: seen\n"
        return seen

    return of


@pytest.mark.usefixtures("registered")
def test_without_flags_the_options_are_those_of_the_dataclass(options_of):
    seen = options_of("cats", *PAIR)
    assert (seen.pop("task"), seen.pop("source"), seen.pop("target"), seen.pop("out")) == ("cats", "tiny-a", "tiny-b", None)
    assert RunOptions.from_dict(seen) == RunOptions()
    assert set(seen) == set(RunOptions().to_dict()) - set(LESS), "what --quick may change is passed where it is given"


@pytest.mark.usefixtures("registered")
def test_quick_leaves_what_is_given_also_if_it_is_the_default(options_of):
    seen = options_of("cats", *PAIR, "--quick", "--n", "200", "--variants")
    options = RunOptions.from_dict({name: value for name, value in seen.items() if name in RunOptions().to_dict()})
    assert (options.n, options.variants, options.seeds, options.side_effects) == (200, True, LESS["seeds"], False)


def test_the_defaults_and_the_help_are_those_of_the_modules():
    plain = RunOptions()
    assert (plain.mode, plain.norm, plain.alignment) == (DEFAULT_MODE, DEFAULT_NORM, DEFAULT_STRATEGY)
    assert plain.directions == RANDOM_DIRECTIONS
    assert RunOptions.__doc__ is not None and all(kind in RunOptions.__doc__ for kind in KINDS)


@pytest.mark.usefixtures("registered")
def test_every_flag_arrives(options_of, tmp_path):
    flags = ["--mapper", "low_rank", "--setting", "rank=2", "--setting", "name=it's", "--mode", "delta", "--norm", "spread"]
    flags += [
        "--alignment",
        "word_ends",
        "--source-site",
        SITE,
        "--edition",
        "pets",
        "--direction",
        "induce",
        "--dtype",
        "bfloat16",
    ]
    flags += ["--max-new-tokens", "9", "--device", "cpu", "--chat", "--data", "copy", "--texts", "t.jsonl"]
    flags += ["--n", "3", "--seed", "5", "--budget", "0.5", "--directions", "7", "--seeds", "2", "--n-validation", "2"]
    flags += ["--no-variants", "--no-side-effects", "--read", "all", "--quick"]
    flags += ["--no-strength-one", "--instruction", "Be rude.", "--chat-template", "alpaca", "--method", "robust"]
    seen = options_of("cats", *PAIR, *flags, "--out", tmp_path / "out")
    assert seen.pop("settings") == {"rank": 2, "name": "it's"} and seen.pop("out") == tmp_path / "out"
    assert seen == {
        "task": "cats", "source": "tiny-a", "target": "tiny-b", "mapper": "low_rank", "mode": "delta", "norm": "spread",
        "alignment": "word_ends", "source_site": SITE, "target_site": None, "edition": "pets", "direction": "induce",
        "data": "copy", "chat": True, "texts": "t.jsonl", "max_new_tokens": 9,
        "dtype": "bfloat16", "device": "cpu", "n": 3, "seed": 5, "budget": 0.5, "directions": 7, "seeds": 2, "n_validation": 2,
        "variants": False, "side_effects": False, "read": "all", "quick": True, "strength_one": False,
        "instruction": "Be rude.", "chat_template": "alpaca", "method": "robust",
    }  # fmt: skip


@pytest.mark.usefixtures("registered")
def test_pairs_take_the_place_of_a_name(options_of, pairs_file):
    task = find_task(options_of("--pairs", pairs_file, "--judge", "lacks:dog", *PAIR)["task"])
    assert task.name == "cats" and task.prompts("test")[0].startswith("the dog")
    seen = options_of("--pairs", pairs_file, "--judge", "lacks:dog", *PAIR, "--system", "Be brief.", "--max-new-tokens", "5")
    task = find_task(seen["task"])
    assert task.prompts("test")[0].messages[0] == ("system", "Be brief.")
    assert task.texts("train")[0].messages[-1][0] == "assistant", "right answers are messages of the assistant"
    assert (seen["max_new_tokens"], seen["chat"]) == (5, False)
    chat = options_of("--pairs", pairs_file, "--judge", "lacks:dog", *PAIR, "--chat")
    assert find_task(chat["task"]).prompts("test")[0].messages[0][0] == "user" and chat["chat"] is False


def test_flags_come_from_any_dataclass_with_documentation():
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Options:
        """Two options.

        Attributes:
            size: how large it is,
                in tokens.
            deep: whether it is deep.
        """

        size: int = 3
        deep: bool = False

    def command(options: dict, one: str = "", two: str = "") -> None:
        raise AssertionError(options, one, two)

    made: Any = with_flags(Options)(command)
    assert list(made.__signature__.parameters) == ["context", "size", "deep", "one", "two"]
    assert made.__annotations__["size"].__metadata__[0].help == "How large it is, in tokens."
    sources = {"size": "COMMANDLINE", "deep": "DEFAULT"}
    context = SimpleNamespace(get_parameter_source=lambda name: SimpleNamespace(name=sources[name]))
    with pytest.raises(AssertionError, match=r"\{'size': 4, 'deep': False\}, '1', '2'"):
        made(context=context, size=4, deep=False, one="1", two="2")
    with pytest.raises(AssertionError, match=r"\{'size': 4\}, '1', '2'"):
        with_flags(Options, where_given=sources)(command)(context=context, size=4, deep=False, one="1", two="2")  # type: ignore[call-arg]


@pytest.mark.usefixtures("registered")
def test_json_is_one_document_and_the_report_can_be_drawn_again(call, options_of, monkeypatch, tmp_path):
    folder = tmp_path / "out"
    code, out, _ = call("run", "cats", *PAIR, *QUICK, "--setting", "ridge=0.5", "--out", folder, "--json")
    assert code == 0
    stored = json.loads((folder / "result.json").read_text())
    assert json.loads(out) == stored
    page = (folder / "report.html").read_text()
    seen = options_of(*_command_on(page))
    assert (seen.pop("task"), seen.pop("source"), seen.pop("target")) == ("cats", "tiny-a", "tiny-b")
    assert seen.pop("out") == Path("FOLDER")
    assert RunOptions.from_dict(seen).to_dict() == {**stored["options"], "source_site": SITE, "target_site": SITE}
    monkeypatch.undo()  # the pipeline is replaced until here
    (folder / "report.html").unlink()
    assert call("report", folder)[0] == 0 and (folder / "report.html").read_text() == page
    code, out, _ = call("report", folder, "--csv")
    assert code == 0 and {"report.html", "conditions.csv", "completions.csv"} <= {Path(line).name for line in out.split()}
    assert (folder / "completions.csv").read_text().startswith('"prompt_index","prompt","condition","completion",')
    other = shutil.copytree(folder, tmp_path / "other")
    code, out, _ = call("report", folder, "--against", other)
    assert (code, out.strip()) == (0, str(folder / "against-other.html"))
    code, out, _ = call("report", folder, "--against", other, "--out", tmp_path / "both.html")
    assert (code, out.strip()) == (0, str(tmp_path / "both.html"))


@pytest.mark.usefixtures("registered")
def test_a_repeated_run_prints_what_differs(call, tmp_path, monkeypatch):
    result = it.Result("cats", {"name": "tiny-b"}, {}, (), 0)
    for differences, line in (
        ([], "All figures are those of r.json"),
        (["seed: 0 then, 1 now"], "1 figures differ from r.json"),
    ):
        monkeypatch.setattr("interp_transfer.studies.rerun.rerun", lambda *_, d=differences, **__: (result, d))
        code, out, _ = call("run", "--from", "r.json", "--out", tmp_path)
        assert code == 0 and line in out and all(difference in out for difference in differences)


def _command_on(page: str) -> list[str]:
    """The arguments of the command that a report shows."""
    commands = re.findall(r"interp-transfer run.*?FOLDER", html.unescape(page), re.S)
    return shlex.split(next(c for c in commands if "--setting" in c).replace("\\\n", " "))[2:]


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (("run", "cats"), "name a task, --source and --target"),
        (("run", *PAIR), "name a task, --source and --target"),
        (("run", "cats", "--from", "result.json"), "leave them out"),
        (("run", "--from", "nowhere/result.json"), "nowhere/result.json is missing"),
        (("run", "catts", *PAIR), "cats"),
        (("run", "cats", "--source", "nowhere/at-all", "--target", "tiny-b", "--n", "2"), "nowhere/at-all"),
        (("run", "cats", *PAIR, "--mapper", "afine"), "affine"),
        (("run", "cats", *PAIR, "--setting", "width"), "NAME=VALUE"),
        (("run", "cats", *PAIR, "--mode", "dela"), "delta"),
        (("run", "cats", *PAIR, "--norm", "spred"), "spread"),
        (("run", "cats", *PAIR, "--alignment", "index_lef"), "index_left"),
        (("run", "cats", *PAIR, "--directions", "0"), "directions=0: give at least one"),
        (("run", "cats", *PAIR, "--strengths", "1"), "--strengths"),
        (("run", "cats", *PAIR, "--edition", "pet"), "pets"),
        (("run", "cats", *PAIR, "--pairs", "x.jsonl", "--judge", "refusal"), "name a task, or give --pairs"),
        (("run", "--pairs", "x.jsonl", *PAIR), "--pairs and --judge belong together"),
        (("run", "--pairs", "x.jsonl", "--judge", "refusal", *PAIR), "x.jsonl"),
        (("run", "--pairs", "x.jsonl", "--judge", "refusal", "--data", "copy", *PAIR), "leave it out"),
        (("run", "cats", "--system", "Be brief.", *PAIR), "--system goes with --pairs"),
        (("run", "cats", "--data", "no-such-copy", *PAIR), "there is no data at 'no-such-copy'"),
        (("run", "cats", "--chat", *PAIR), "the task 'cats' has no option 'template'"),
        (("run", "cats", "--max-new-tokens", "0", *PAIR), "max_new_tokens=0"),
        (("report", "no-such-folder"), "no-such-folder"),
        (("report", "no-such-folder", "--csv"), "no-such-folder"),
        (("report", "no-such-folder", "--against", "other"), "no-such-folder"),
        (("report", "no-such-folder", "--out", "page.html"), "--against"),
        (("report", "no-such-folder", "--against", "other", "--png"), "without --against"),
    ],
)
def test_errors_are_one_line_on_stderr_with_exit_code_2(refuses, argv, hint):
    refuses(hint, *argv)


@pytest.mark.usefixtures("registered")
def test_an_occupied_folder_is_left_alone(refuses, tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    refuses("not an empty folder", "run", "cats", *PAIR, "--n", "2", "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
