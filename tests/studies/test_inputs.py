"""Which task a name means for which models, how many prompts a run takes, and templates for models that have none."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import interp_transfer as it
from interp_transfer import plugins
from interp_transfer.evaluation.ready import refusal_task
from interp_transfer.models.checkpoints import number_of_blocks
from interp_transfer.plugins import KnownModel, Plugin
from interp_transfer.prompts.chats import Chat
from interp_transfer.studies.inputs import _edition_of, find_task, open_exactly
from interp_transfer.studies.options import TaskOptions
from interp_transfer.studies.run import run
from tests.checkpoints import make_checkpoint


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> None:
    """One plugin, which made "mine" for a task of its own that is named "refusal", and fetches "real"."""
    own: Any = Plugin(
        models=lambda: {"mine": KnownModel("mine", Path("mine"))}, tasks=lambda: {"refusal": refusal_task, "own": refusal_task}
    )
    fetched: Any = Plugin(models=lambda: {"real": KnownModel("real", Path("real"), fetched=True)})
    monkeypatch.setattr(plugins, "plugins", lambda: {"a": own, "b": fetched})


@pytest.mark.usefixtures("maker")
def test_a_name_that_a_plugin_also_has_means_the_ready_task_for_other_models():
    assert _edition_of("refusal", ("real", "some/model")) == "ready"
    assert _edition_of("refusal", (SimpleNamespace(name_or_path="some/model"), Path("folder"))) == "ready"
    assert _edition_of("refusal", ("mine", "real")) is None
    assert _edition_of("own", ("real", "real")) is None
    assert _edition_of("french", ("mine", "mine")) == "ready"


def test_refusal_on_a_real_model_is_not_that_of_the_micro_world():
    ready, micro = ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"), ("micro-qwen-s", "micro-qwen-m")
    assert find_task("refusal", models=ready).prompts("test") == refusal_task().prompts("test")
    assert find_task("refusal", models=micro).prompts("test") != refusal_task().prompts("test")
    assert find_task("refusal", TaskOptions("ready"), models=micro).prompts("test") == refusal_task().prompts("test")
    assert find_task("refusal", TaskOptions(chat=True), models=ready).name == "refusal", "it is a chat already"
    assert find_task("refusal", TaskOptions(max_new_tokens=9), models=ready).max_new_tokens == 9
    assert _edition_of("refusal", (it.load_model("micro-qwen-s"),) * 2) is None, "nor where it is loaded already"


def test_by_default_a_run_takes_all_prompts_if_there_are_fewer_than_200(cats: it.Task, models: Any):
    short = replace(cats, prompts=lambda split: cats.prompts(split)[:5], clean=lambda split: cats.clean(split)[:5])
    quick = {"mapper": "affine", "directions": 1, "seeds": 1, "variants": False, "side_effects": False, "strength_one": False}
    site = "blocks.1.hook_resid_pre"
    result = run(short, *models, source_site=site, target_site=site, **quick, progress=False)
    assert len(result.prompts) == result.details["options"]["n"] == 5
    with pytest.raises(ValueError, match="n=6: there are 5 test prompts of cats"):
        run(short, *models, source_site=site, target_site=site, n=6, **quick, progress=False)


def test_a_template_is_for_models_that_have_none(tmp_path: Path):
    folder = make_checkpoint(tmp_path / "a", "llama", max_position_embeddings=256)
    chat = Chat((("user", "hi"),))
    with pytest.raises(ValueError, match="--chat-template alpaca"):
        it.generate(open_exactly(str(folder), TaskOptions(device="cpu")), [chat], max_new_tokens=1)
    alpaca = TaskOptions(device="cpu", chat_template="alpaca")
    model = open_exactly(str(folder), alpaca)
    assert it.generate(model, [chat], max_new_tokens=1)
    own = open_exactly(it.load_model(folder, device="cpu", chat_template="{{ messages[0].content }}"), alpaca)
    assert own.tokenizer.chat_template == "{{ messages[0].content }}"


def test_a_look_at_the_configuration_never_asks_to_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "config.json").write_text('{"model_type": "odd", "auto_map": {"AutoConfig": "odd.Odd"}}')
    (tmp_path / "odd.py").write_text("raise SystemExit('run')")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    assert number_of_blocks(tmp_path) is None
