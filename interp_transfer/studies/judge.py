"""Judge the completions of a finished run by a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp_transfer.evaluation.judges.conditions import JudgedConditions, judge_conditions
from interp_transfer.evaluation.judges.opinion import ModelJudge
from interp_transfer.io import write_json
from interp_transfer.models.load import load_model
from interp_transfer.reporting.run_folder import read_run

JUDGES = ("perplexity", "repetition", "similarity", "guard", "rubric-similarity", "rubric-coherence")
"""Kinds of judges."""
OPINIONS = "opinions"
"""Folder in a run's folder where opinions are stored."""


def judge_run(
    folder: str | Path,
    kind: str,
    model: str | None = None,
    *,
    base_url: str | None = None,
    local: bool = False,
    budget: int | None = None,
    against: str | None = None,
    unsafe: Sequence[str] = ("unsafe",),
    progress: bool = True,
) -> JudgedConditions:
    """Judge the completions of every condition of a run, and write ``judged-KIND.json`` into its folder.

    Opinions are stored as they arrive: after an interruption, or when a budget was used up, the same call resumes. Rubrics are
    put to an endpoint, whose key is read from the environment variable OPENAI_API_KEY and stored nowhere, unless ``local``.

    Args:
        folder: folder of a run, with ``completions.json``.
        kind: one of ``JUDGES``.
        model: the judge: a hooked model for "perplexity" and local rubrics, a model of sentence-transformers for
            "similarity", a guard model, or the endpoint's name for a model; none for "repetition".
        base_url: an OpenAI-compatible endpoint; default: OPENAI_BASE_URL.
        local: put the rubric to a model on this machine.
        budget: largest number of requests to an endpoint.
        against: condition that similarity is measured to; default: "native", or "unsteered" if there is none.
        unsafe: labels of a classifying guard that mean unsafe.
        progress: show bars for what takes longer than two seconds.

    Raises:
        ValueError: before any work, for anything unknown or contradicting, or a damaged folder; and for an endpoint that
            refuses the key or the model, after finished opinions were stored.
    """
    where = Path(folder)
    stored = read_run(where).completions
    judge = _judge(kind, model, base_url=base_url, local=local, budget=budget, unsafe=unsafe)
    completions = {name: [each["completion"] for each in texts] for name, texts in stored["conditions"].items()}
    options: dict[str, Any] = {"against": against, "cache": where / OPINIONS, "progress": progress}
    judged = judge_conditions(judge, stored["prompts"], completions, **options)
    write_json(where / f"judged-{kind}.json", judged.to_dict())
    return judged


def _judge(
    kind: str, model: str | None, *, base_url: str | None, local: bool, budget: int | None, unsafe: Sequence[str]
) -> ModelJudge:
    from interp_transfer.evaluation.judges import coherence, endpoint, guard, rubric, similar

    if kind not in JUDGES:
        raise ValueError(f"unknown judge {kind!r}: choose one of {', '.join(JUDGES)}")
    rubrics = {known.name: known for known in (rubric.SIMILARITY, rubric.COHERENCE)}
    if (local or base_url is not None or budget is not None) and kind not in rubrics:
        raise ValueError(f"{kind} is no rubric: leave out local, base_url and budget (--local, --base-url, --budget)")
    if local and (base_url is not None or budget is not None):
        raise ValueError("a local model has no base URL and no budget: leave out --local, or the two")
    if kind == "repetition":
        if model is not None:
            raise ValueError(f"repetition needs no model: leave out {model!r}")
        return coherence.RepetitionShare()
    if model is None:
        raise ValueError(f"{kind} needs a model: name one with model= (--model)")
    if kind == "perplexity":
        return coherence.PerplexityJudge(load_model(model))
    if kind == "similarity":
        return similar.similarity_judge(model)
    if kind == "guard":
        return guard.guard_judge(model, unsafe=unsafe)
    if local:
        return rubric.RubricJudge(rubrics[kind], rubric.LocalChat(load_model(model)))
    spend = endpoint.Budget(requests=budget)
    return rubric.RubricJudge(rubrics[kind], endpoint.Endpoint(model, base_url, budget=spend))
