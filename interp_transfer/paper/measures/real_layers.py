"""Which blocks of a pretrained model steer, and whether cheap predictors find them.

At every third block the model's own vector is added at the largest strength within one clean-KL budget, so that blocks are
compared at equal cost. Predictors choose one of the same blocks without steering.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from interp_transfer.evaluation.evaluator import evaluator
from interp_transfer.evaluation.ready import trait_task
from interp_transfer.evaluation.task import Task
from interp_transfer.features.probes import probe_sites
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.load import load_model
from interp_transfer.models.sites import layer_of, residual_sites
from interp_transfer.paper.charts import Chart, Dots, number
from interp_transfer.paper.measures.real_refusal import VALIDATION, refusal_task
from interp_transfer.paper.rows import Row, RowsByCase, Value, Verdict, estimate_of, value_of
from interp_transfer.paper.setup import Setup
from interp_transfer.prompts.chats import Chat
from interp_transfer.prompts.contrast import ContrastPair
from interp_transfer.search.first_order import NothingToPredict, first_order
from interp_transfer.search.strengths import largest_within
from interp_transfer.stats import Estimate
from interp_transfer.vectors.extract import extract_each
from interp_transfer.vectors.vector import SteeringVector

EVERY, TOKENS, DEPTH = 3, 24, 0.6
"""Distance of blocks, length of completions, and the relative depth that `depth` takes without looking at anything."""
PREDICTORS = ("attribution", "probe")
BASELINE = "depth"
NEAR, MODELS, OF = 0.1, 3, 4
"""Intact answers that a predicted site may lose, and the number of models, of how many, on which it may lose no more."""
UNSTEERED = "unsteered"


def measure(
    setup: Setup,
    model: str,
    trait: Sequence[str] | None = None,
    plain: bool = False,
    method: str = "difference_in_means",
    dtype: str = "bfloat16",
) -> list[Row]:
    """Measure a row for each block, and one for each predictor's choice among them.

    Args:
        setup: the data and n.
        model: whose blocks are tried.
        trait: two ready traits, the wanted one first; without them, harmful requests are to be answered.
        plain: put the questions of traits as plain text, for a model without a chat template.
        method: how vectors are extracted.
        dtype: that the model is loaded in.
    """
    task = trait_task(*trait) if trait else refusal_task(setup, "ablate")
    task = replace(bare(task) if plain else task, max_new_tokens=TOKENS)
    loaded = load_model(model, dtype=dtype)
    sites = list(residual_sites(loaded)[EVERY::EVERY])
    how: dict[str, Any] = {"method": method, "seed": setup.seed, "progress": False}
    vectors = extract_each(loaded, task.contrast("train"), sites, task.read, **how)
    n = min(setup.n, len(task.prompts("test")))
    count = min(VALIDATION, setup.n, len(task.prompts("validation")))
    options: dict[str, Any] = {"seed": setup.seed, "clean_prompts": count, "kept": setup.kept}
    validation, test = (evaluator(loaded, task, split, n=k, **options) for split, k in (("validation", count), ("test", n)))
    limits = largest_within(validation, vectors)
    strengths = [limits[site].strength for site in sites]
    steered = [(vectors[site].add(x, task.positions),) for site, x in zip(sites, strengths, strict=True)]
    judged = test.judge_each([(), *steered], [0.0, *strengths], progress=False)
    scores = _scores(loaded, task, vectors, count, setup.seed)
    rows: list[Row] = []
    for site, one in zip([None, *sites], judged, strict=True):
        row = {"block": UNSTEERED if site is None else layer_of(site), "strength": f"{one.strength:.3g}" if site else "-"}
        shown = {name: score.get(site) for name, score in scores.items()}
        rows.append({**row, "success": one.success, "intact": one.intact, "clean KL": one.cost, **shown})
    intact = dict(zip(sites, (one.intact.value for one in judged[1:]), strict=True))
    return [*rows, *(_choice(name, score, intact) for name, score in scores.items())]


def bare(task: Task) -> Task:
    """The task with plain texts in place of chats: what a system prompt says, the question, and where the answer begins."""

    def text(chat: Chat) -> str:
        return "\n".join([*(f"{said}\n" if who == "system" else f"Question: {said}" for who, said in chat.messages), "Answer:"])

    return replace(
        task,
        contrast=lambda split: [ContrastPair(text(x.positive), text(x.negative)) for x in task.contrast(split)],  # type: ignore[arg-type]
        prompts=lambda split: [text(x) for x in task.prompts(split)],
        clean=lambda split: [text(x) for x in task.clean(split)],
        texts=lambda split: [text(x) for x in task.texts(split)],
    )


def _scores(
    model: HookedModel, task: Task, vectors: Mapping[str, SteeringVector], n: int, seed: int
) -> dict[str, dict[Any, float]]:
    """The score of each site by each predictor, larger is better; none where a predictor says nothing."""
    sites = list(vectors)
    scores: dict[str, dict[Any, float]] = {name: {} for name in (*PREDICTORS, BASELINE)}
    try:
        gradient = first_order(model, task, sites, n=n, seed=seed)
        scores["attribution"] = {site: float(vectors[site].direction.float() @ gradient[site]) for site in sites}
    except NothingToPredict:
        pass
    frame: Any = probe_sites(model, task.contrast("train"), task.contrast("validation"), sites, seed=seed)
    scores["probe"] = dict(zip(frame["site"], map(float, frame["auroc"]), strict=True))
    scores[BASELINE] = {site: -abs((layer_of(site) or 0) / int(model.cfg.n_layers) - DEPTH) for site in sites}
    return scores


def _choice(name: str, score: Mapping[Any, float], intact: Mapping[str, float]) -> Row:
    """The outcome at the site of the highest score, the mean of several with the same one, beside the best site."""
    from scipy.stats import spearmanr

    best = max(intact.values())
    chosen = [site for site in intact if score and score[site] == max(score.values())]
    reached = sum(intact[site] for site in chosen) / len(chosen) if chosen else None
    ranked = len(set(score.values())) > 1 and len(set(intact.values())) > 1
    ranks: Any = spearmanr([score[site] for site in intact], list(intact.values())) if ranked else None
    return {
        "predictor": name,
        "its block": ", ".join(str(layer_of(site)) for site in chosen) or "none",
        "intact there": reached,
        "best intact": best,
        "loses": None if reached is None else best - reached,
        "rank correlation": None if ranks is None else float(ranks.statistic),
    }


def _found(rows: Sequence[Row], predictor: str) -> bool:
    """Whether a predictor's site leaves nearly as many answers intact as the best one."""
    [row] = [row for row in rows if row.get("predictor") == predictor]
    return row["loses"] is not None and value_of(row, "loses") <= NEAR + 1e-9


def verdict(rows_by_case: RowsByCase) -> Verdict:
    """Whether each predictor, the one by depth aside, finds a site as good as the best one on enough models."""
    details = []
    for case, rows in rows_by_case.items():
        choices = [row for row in rows if "predictor" in row]
        before = next(row for row in rows if row.get("block") == UNSTEERED)
        shown = [f"{row['predictor']} block {row['its block']}, {_share(row['intact there'])}" for row in choices]
        best = value_of(choices[0], "best intact")
        details.append(
            f"{case}: intact {value_of(before, 'intact'):.2f} unsteered, {best:.2f} at the best block; {'; '.join(shown)}"
        )
    good = {name: sum(_found(rows, name) for rows in rows_by_case.values()) for name in (*PREDICTORS, BASELINE)}
    measured = len(rows_by_case)
    reached = [good[name] >= MODELS for name in PREDICTORS]
    open_yet = any(good[name] < MODELS <= good[name] + OF - measured for name in PREDICTORS)
    answer = "cannot tell" if open_yet else "yes" if all(reached) else "in part" if any(reached) else "no"
    counts = ", ".join(f"{count} by {name}" for name, count in good.items())
    sentence = f"Models, of {measured}, on which the predicted block loses at most {NEAR:g} of intact answers: {counts}."
    return Verdict(answer, sentence, tuple(details))


def _share(value: Value) -> str:
    return f"{value:.2f}" if isinstance(value, float) else "nothing"


def chart(rows_by_case: RowsByCase) -> Chart:
    """Intact answers without a vector, at the best block, and at the block of each predictor."""
    found: dict[str, dict[str, Estimate]] = {}
    for case, rows in rows_by_case.items():
        swept = {row["block"]: estimate_of(row, "intact") for row in rows if "block" in row}
        before = swept.pop(UNSTEERED)
        found[case] = {UNSTEERED: before, "best block": max(swept.values(), key=lambda one: one.value)}
        chosen = {str(row["predictor"]): row for row in rows if row.get("intact there") is not None}
        found[case] |= {name: number(row, "intact there") for name, row in chosen.items()}
    return Dots("intact answers", found)
