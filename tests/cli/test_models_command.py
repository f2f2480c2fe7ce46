"""`interp-transfer models` with models that a plugin registers, and with folders."""

import json

import pytest

from tests.registered import SITE

pytestmark = pytest.mark.usefixtures("registered")


def test_list(call, checkpoints):
    code, out, err = call("models", "list", "--json")
    assert (code, err) == (0, "")
    rows = {row["name"]: row for row in json.loads(out)}
    assert set(rows) == {"tiny-a", "tiny-b"} and rows["tiny-a"]["path"] == str(checkpoints[0])
    assert {"name", "architecture", "parameters", "tasks", "path"} <= set(rows["tiny-a"])
    assert "tiny-b" in call("models", "list")[1]


def test_show(call, refuses):
    code, out, _ = call("models", "show", "tiny-a")
    assert code == 0 and "LlamaForCausalLM" in out and "Its own vectors" not in out
    assert json.loads(call("models", "show", "tiny-a", "--json")[1])["architecture"] == "LlamaForCausalLM"
    refuses("tiny-a", "models", "show", "tiny-c")
    refuses("cannot measure its models", "models", "show", "tiny-a", "--measure")
    refuses("cannot build its models", "models", "build", "tiny-a")


def test_compare_reads_english_or_the_prompts_of_a_task(call, tmp_path):
    code, out, _ = call("models", "compare", "tiny-a", "tiny-b", "--task", "cats", "--n", "12", "--json")
    assert code == 0
    plain = json.loads(out)
    assert plain["n"] == 12 and len(plain["cka"]) == 4 and SITE not in out
    code, out, _ = call("models", "compare", "tiny-a", "tiny-a", "--n", "12", "--out", tmp_path / "map.html")
    assert code == 0 and "12 prompts, last token" in out and (tmp_path / "map.html").is_file()
