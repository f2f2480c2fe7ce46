"""Traits of the edition "real": parts that share no question, a judge that is trained on prompted answers, and the rule."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from interp_transfer.models.load import load_model
from interp_transfer.paper.given import trait_instructions, trait_questions
from interp_transfer.paper.kinds import kind
from interp_transfer.paper.measures import real_traits
from interp_transfer.paper.measures.real_traits import OTHER, WANTED
from interp_transfer.paper.setup import Setup
from interp_transfer.prompts.traits import Trait
from interp_transfer.stats import rate
from tests.paper.test_real_edition import TEMPLATE

SITES = ["blocks.1.hook_resid_pre", "blocks.1.hook_resid_pre"]


@pytest.fixture
def models(folder: Any, tmp_path: Path) -> list[str]:
    made = [str(shutil.copytree(folder(family), tmp_path / family)) for family in ("llama", "qwen2")]
    for name in made:
        (Path(name) / "chat_template.jinja").write_text(TEMPLATE)
    return made


def test_no_question_is_in_two_parts(traits_setup: Setup, models: list[str]):
    parts = real_traits._questions(traits_setup)
    every = [question for part in parts.values() for question in part]
    assert len(every) == len(set(every)) == 22
    task, accuracy = real_traits.trait_task(traits_setup, "formal", load_model(models[1]), "")
    assert accuracy.n == 8, "four questions, with the trait and without it"
    for part in ("train", "validation", "test"):
        asked = [chat.request for chat in task.prompts(part)]
        assert asked == parts[part] and all("system" not in dict(chat.messages) for chat in task.prompts(part))
        for pair, question in zip(task.contrast(part), parts[part], strict=True):
            assert pair.positive.request == pair.negative.request == question
            assert "formal" in str(pair.positive) and "casual" in str(pair.negative)
    assert task.instruction.startswith("Be formal")
    assert set(task.judge.head.classes_) == {WANTED, OTHER}  # type: ignore[attr-defined]


def test_the_judge_sees_neither_the_last_instruction_nor_the_questions_that_it_is_tested_on(
    traits_setup: Setup, models: list[str], monkeypatch: pytest.MonkeyPatch
):
    seen: list[Any] = []
    fit = real_traits.fit_embedding_judge

    def spy(encoder: Any, prompts: Any, completions: Any, labels: Any, wanted: Any) -> Any:
        seen.extend(zip(prompts, labels, strict=True))
        return fit(encoder, prompts, completions, labels, wanted)

    monkeypatch.setattr(real_traits, "fit_embedding_judge", spy)
    real_traits.trait_task(traits_setup, "formal", load_model(models[1]), "")
    last = trait_instructions(traits_setup.data, "formal")[-1][0]
    tested = real_traits._questions(traits_setup)["judge"]
    assert [sum(label == one for _, label in seen) for one in (WANTED, OTHER)] == [8, 8], "neither is likelier"
    assert not any(last in str(chat) or chat.request in tested for chat, _ in seen)
    assert {label for chat, label in seen if "formal" in str(chat)} == {WANTED}
    assert {label for chat, label in seen if "formal" not in str(chat)} == {OTHER}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_traits_on_tiny_models(traits_setup: Setup, models: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(real_traits, "ready_prompts", lambda _: [real_traits._chat(f"Say {k}?") for k in range(20)])
    rows = real_traits.measure(traits_setup, models[0], models[1], SITES, ["formal"], dtype="float32")
    names = [row["condition"] for row in rows]
    assert names == ["unsteered", "system prompt", "native", "moved", "random", "shuffled", "mean ablated"]
    assert all(list(row) == list(rows[0]) and row["by words"] is not None for row in rows)
    assert [row["judge right"] is not None for row in rows] == [True] + [False] * 6


def test_rules_for_traits_that_allow_one():
    brief, long = "Yes. It does.", "It does, and " * 10
    assert real_traits._by_words("concise", [brief, long]) == rate([True, False])
    assert real_traits._by_words("sarcastic", [brief]) is None
    formal: Trait = real_traits.ready_traits()["formal"]
    assert real_traits._by_words("formal", [formal.words[0].rstrip("*"), ""]) == rate([True, False])


def rows_of(trait: str, unsteered: int, native: int, moved: int) -> list[dict[str, Any]]:
    shares = {"unsteered": unsteered, "native": native, "moved": moved}
    return [
        {"trait": trait, "condition": name, "success": rate([k < share for k in range(100)])} for name, share in shares.items()
    ]


GOOD, BAD, UNCOUNTED = (10, 60, 50), (10, 60, 49), (10, 29, 60)


@pytest.mark.parametrize(
    ("shares", "answer"),
    [
        ([GOOD] * 5 + [UNCOUNTED] * 3, "yes"),
        ([GOOD] * 4 + [BAD] * 4, "in part"),
        ([UNCOUNTED] * 5 + [BAD] * 3, "no"),
        ([GOOD] * 4, "cannot tell"),
        ([BAD] * 4, "no"),
        ([BAD] * 3, "cannot tell"),
    ],
)
def test_the_rule_for_traits_is_the_registered_one(shares: list[tuple[int, int, int]], answer: str):
    found = kind("real_traits").verdict({f"case {k}": rows_of("formal", *some) for k, some in enumerate(shares)})
    assert found.agrees == answer
    assert sum("not counted" in line for line in found.details) == shares.count(UNCOUNTED)


def test_data_of_traits_that_are_wrong_are_named(data: Path, tmp_path: Path):
    assert len(trait_questions(data)) == 40
    with pytest.raises(ValueError, match="unknown trait 'formall': did you mean 'formal'"):
        trait_instructions(data, "formall")
    (tmp_path / "traits").mkdir()
    (tmp_path / "traits" / "odd.json").write_text('{"instruction": [{"pos": "x"}]}')
    with pytest.raises(ValueError, match="odd.json is no trait"):
        trait_instructions(tmp_path, "odd")
    few = Setup("real", 6, 0)
    few.data = data
    with pytest.raises(ValueError, match="there are 40 questions of traits: 236 are needed"):
        real_traits._questions(few)
