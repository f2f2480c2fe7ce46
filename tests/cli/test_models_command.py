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
    assert "block 3" in out and "most alike" not in out


def test_compare_fits_the_terminal_and_checks_names_first(call, refuses, monkeypatch):
    from interp_transfer.models import load

    monkeypatch.setenv("COLUMNS", "50")
    code, out, _ = call("models", "compare", "tiny-a", "tiny-a", "--n", "12")
    assert code == 0 and max(map(len, out.splitlines())) <= 60 and "--out FILE.html" in out
    rows = [line.split() for line in out.splitlines() if line.startswith("│ block")]
    assert [row[2] for row in rows] == ["0", "1", "2", "3"]
    assert all(row[5] == row[2] for row in rows[1:]), "of one model, each block is most like itself"
    monkeypatch.setattr(load, "load_model", lambda name: pytest.fail(f"{name} was loaded"))
    refuses("unknown model 'tiny-bb': did you mean 'tiny-b'", "models", "compare", "tiny-a", "tiny-bb")


def test_get_prints_the_licence_and_the_path(call, refuses, user_cache, monkeypatch):
    from interp_transfer.models import fetch

    refuses("unknown model 'smollm2-135m': did you mean 'smollm2-135m-instruct'", "models", "get", "smollm2-135m")
    code, out, err = call("models", "get", "gemma3-270m")
    assert (code, out) == (2, "") and "licence Gemma Terms of Use https://ai.google.dev" in err and "--accept-licence" in err
    assert not list(user_cache.rglob("*"))
    folder = user_cache / "model"
    monkeypatch.setattr(fetch, "fetch", lambda name, accept_licence: (folder, "hub"))
    code, out, err = call("models", "get", "smollm2-135m-instruct")
    assert (code, out) == (0, f"{folder}\n")
    assert err == "smollm2-135m-instruct: 134,515,008 parameters, licence Apache-2.0\n"
    plain = json.loads(call("models", "get", "smollm2-135m-instruct", "--json")[1])
    assert plain == {"name": "smollm2-135m-instruct", "path": str(folder), "from": "hub", "licence": "Apache-2.0"}


def test_what_was_fetched_is_listed_and_what_was_not_can_be(call, refuses, user_cache, monkeypatch):
    from interp_transfer import plugins
    from interp_transfer.models import sources

    monkeypatch.setattr(plugins, "plugins", lambda: {"models": sources.PLUGIN})
    assert json.loads(call("models", "list", "--json")[1]) == []
    refuses("fetch it with `interp-transfer models get gemma3-270m`", "models", "show", "gemma3-270m")
    file = user_cache / "interp_transfer" / "models" / "gemma3-270m" / "x.gguf"
    file.parent.mkdir(parents=True)
    file.touch()
    [row] = json.loads(call("models", "list", "--json")[1])
    assert (row["name"], row["architecture"], row["path"]) == ("gemma3-270m", "Gemma3ForCausalLM", str(file))
    assert "licence: Gemma Terms of Use" in call("models", "show", "gemma3-270m")[1]
