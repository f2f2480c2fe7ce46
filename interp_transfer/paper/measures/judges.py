"""Judges of refusals against people, on XSTest's completions that two people labelled.

Judges are tuned and trained on completions of prompts with odd numbers, and measured on those of prompts with even ones.
"""

from collections.abc import Callable, Sequence

from interp_transfer.evaluation.judges import load
from interp_transfer.evaluation.judges.agreement import kappa
from interp_transfer.evaluation.judges.embedding import ENCODER, fit_embedding_judge, load_encoder
from interp_transfer.evaluation.judges.refusal import XSTEST_OPENINGS, OpeningsJudge, degree
from interp_transfer.evaluation.judges.rules import Judge
from interp_transfer.paper.charts import Chart, Dots
from interp_transfer.paper.given import Labelled, xstest
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, estimate_of
from interp_transfer.paper.setup import Setup
from interp_transfer.stats import rate

WORDS = 48
"""Words of a completion that is cut after about 64 tokens."""
GOAL = 0.88
HALVES = ("other prompts", "prompts that it was tuned on", "all")

Labels = Callable[[Sequence[Labelled]], list[str]]


def measure(setup: Setup, judge: str, encoder: str = ENCODER) -> list[Row]:
    """Measure a row for each half of the prompts.

    Args:
        setup: the data.
        judge: "people" (the second person against the first), "rules", "rules, cut", "phrases" (of Arditi et al.), "openings"
            (of the authors of XSTest), "embeddings", or "embeddings and rules".
        encoder: of the judges on embeddings.
    """
    known = xstest(setup.data)
    tuning = [one for one in known if one.tuning]
    labels, truth = _judge(judge, tuning, encoder)(known), 0 if judge == "people" else 2
    every = list(zip(known, labels, strict=True))
    halves = ([two for two in every if not two[0].tuning], [two for two in every if two[0].tuning], every)
    rows: list[Row] = []
    for name, part in zip(HALVES, halves, strict=True):
        found, people = [label for _, label in part], [one.labels[truth] for one, _ in part]
        prompts = [one.number for one, _ in part]
        refused, are = [one != "complied" for one in found], [one != "complied" for one in people]
        rows.append(
            {
                "judge": judge,
                "on": name,
                "kappa": kappa(refused, are, prompts, seed=setup.seed),
                "three-way kappa": kappa(found, people, prompts, seed=setup.seed) if "partly" in found else None,
                "agreement": rate([a == b for a, b in zip(refused, are, strict=True)]),
                "refusals found": rate([a for a, b in zip(refused, are, strict=True) if b]),
                "answers kept": rate([not a for a, b in zip(refused, are, strict=True) if not b]),
                "in part found": rate([a for a, b in zip(refused, people, strict=True) if b == "partly"]),
            }
        )
    return rows


def _judge(name: str, tuning: Sequence[Labelled], encoder: str) -> Labels:
    """What a judge calls completions."""
    if name == "people":
        return lambda part: [one.labels[1] for one in part]
    if name == "rules":
        return lambda part: [degree(one.completion, one.prompt) for one in part]
    if name == "rules, cut":
        return lambda part: [degree(" ".join(one.completion.split()[:WORDS]), one.prompt) for one in part]
    if name == "phrases":
        return _refused(load("refusal_phrase"))
    if name == "openings":
        return _refused(OpeningsJudge(XSTEST_OPENINGS))
    if name in ("embeddings", "embeddings and rules"):
        prompts, texts, labels = ([pick(one) for one in tuning] for pick in (_prompt, _completion, lambda one: one.labels[2]))
        trained = fit_embedding_judge(load_encoder(encoder), prompts, texts, labels, ["refused"], rules=name != "embeddings")
        return lambda part: trained.labels([one.prompt for one in part], [one.completion for one in part])
    raise ValueError(f"unknown judge {name!r}")


def _refused(judge: Judge) -> Labels:
    def label(part: Sequence[Labelled]) -> list[str]:
        verdicts = judge([one.prompt for one in part], [one.completion for one in part])
        return ["refused" if verdict.success else "complied" for verdict in verdicts]

    return label


def _prompt(one: Labelled) -> str:
    return one.prompt


def _completion(one: Labelled) -> str:
    return one.completion


def chart(rows_by_case: RowsByCase) -> Chart:
    """Kappa of each judge on prompts that it was not tuned on."""
    return Dots(
        "kappa with the final human label",
        {case: {HALVES[0]: estimate_of(rows[0], "kappa")} for case, rows in rows_by_case.items()},
    )


def verdict(rows_by_case: RowsByCase) -> Verdict:
    """Whether the rules reach the goal on prompts that they were not tuned on."""
    held_out = {str(row["judge"]): estimate_of(row, "kappa") for rows in rows_by_case.values() for row in rows[:1]}
    details = tuple(f"{name}: kappa {found}" for name, found in held_out.items())
    if "rules" not in held_out:
        return Verdict("cannot tell", "The rules were not measured.", details)
    rules = held_out["rules"]
    answer = "yes" if rules.value >= GOAL else "no"
    return Verdict(
        answer, f"On prompts that they were not tuned on, the rules have a kappa of {rules} with the final label.", details
    )
