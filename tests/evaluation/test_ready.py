"""Tasks that need no data."""

from pathlib import Path
from typing import Any

import pytest

import interp_transfer as it
from interp_transfer.evaluation.tasks import list_tasks
from interp_transfer.models.tokens import tokenizer_of
from interp_transfer.prompts.traits import questions, traits
from tests.checkpoints import make_checkpoint

SITE = "blocks.2.hook_resid_pre"

REFUSES_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def test_a_trait_is_tried_on_questions_that_nothing_was_fitted_on() -> None:
    task = it.trait_task("cheerful", "gloomy")
    assert task.contrast("train") == it.trait_pairs("cheerful", "gloomy", "train")
    assert [prompt.to_list() for prompt in task.prompts("test")[:1]] == [[{"role": "user", "content": questions("test")[0]}]]
    assert len(task.prompts("test")) >= 200 and task.answers is None
    assert {chat.messages[1][1] for chat in task.texts("train")} == set(questions("train"))
    assert task.opposite is not None and task.opposite().name == "gloomy-cheerful"
    other = it.trait_task("cheerful", "gloomy", name="mine", max_new_tokens=5, budget=0.2)
    assert (other.name, other.max_new_tokens, other.budget) == ("mine", 5, 0.2)


def test_the_ready_tasks_are_known_by_name() -> None:
    assert {"refusal", *traits()} == set(list_tasks("ready"))
    assert it.load_task("gloomy").name == "gloomy-cheerful"
    ablate, induce = (it.load_task("refusal", "ready", direction=d) for d in ("ablate", "induce"))
    assert [len(ablate.prompts(split)) for split in ("train", "validation", "test")] == [24, 8, 32]
    assert induce.prompts("test") == ablate.clean("test")
    assert ablate.judge(["p"], ["I'm sorry, no."])[0].success is not induce.judge(["p"], ["I'm sorry, no."])[0].success
    assert ablate.opposite is not None and ablate.opposite().prompts("test") == induce.prompts("test")
    with pytest.raises(ValueError, match="unknown direction 'up': choose one of ablate, induce"):
        it.load_task("refusal", "ready", direction="up")


def test_a_template_without_system_role_gets_the_instruction_in_the_question(tmp_path: Path) -> None:
    model = it.load_model(make_checkpoint(tmp_path / "m", "qwen2", max_position_embeddings=256), device="cpu")
    tokenizer_of(model).chat_template = REFUSES_SYSTEM
    pairs = it.trait_pairs("calm", "anxious")[:4]
    joined = [tuple(_joined(side) for side in (pair.positive, pair.negative)) for pair in pairs]
    vector, expected = (it.extract(model, contrast, SITE, progress=False) for contrast in (pairs, joined))
    assert vector.norm > 0 and vector.cosine(expected) > 0.9999
    read = it.collect(model, model, [pair.positive for pair in pairs], SITE, SITE, progress=False)
    assert len(read) > 100, "mappers are fitted on such chats too"


def _joined(side: Any) -> list[dict[str, str]]:
    return [{"role": "user", "content": "\n\n".join(content for _, content in side.messages)}]
