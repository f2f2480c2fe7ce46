"""Traits of character moved between chat models.

A trait is brought out by system prompts, with the questions and instructions of the data folder ``traits``. No question is in
two of the parts: vectors, the judge's test, validation, and test. The judge is a classifier on sentence embeddings, trained on
the target's own answers: to questions of the vectors, under system prompts for the trait against as many without one and under
prompts for its opposite. Its accuracy is measured on other questions and under an instruction that it did not see.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from interp_transfer.evaluation.evaluator import Condition
from interp_transfer.evaluation.judges import load
from interp_transfer.evaluation.judges.embedding import ENCODER, fit_embedding_judge, load_encoder
from interp_transfer.evaluation.judges.rules import OneByOne
from interp_transfer.evaluation.kept import about_model
from interp_transfer.evaluation.ready import TRAIT_BUDGET
from interp_transfer.evaluation.task import Task
from interp_transfer.interventions.generation import generate
from interp_transfer.io import hashed
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.load import load_model
from interp_transfer.paper.charts import Chart, dots
from interp_transfer.paper.given import trait_instructions, trait_questions
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, estimate_of
from interp_transfer.paper.setup import Setup
from interp_transfer.prompts.chats import Chat
from interp_transfer.prompts.contrast import ContrastPair
from interp_transfer.prompts.traits import traits as ready_traits
from interp_transfer.stats import Estimate, rate
from interp_transfer.studies.controls import Fitter
from interp_transfer.studies.options import RunOptions
from interp_transfer.studies.texts import ANSWER_TOKENS, answered, mapper_tokens, paired, pairs_key, ready_prompts
from interp_transfer.studies.trial import Trial
from interp_transfer.vectors.controls import random_vectors
from interp_transfer.vectors.extract import extract

PARTS = {"train": 64, "judge": 60, "validation": 12, "test": 100}
"""Number of questions of each part."""
TOKENS = 32
WANTED, OTHER = "with the trait", "without it"
BRIEF = 20
"""Words of a concise answer, at most; an answer of ordinary length is cut off behind more."""
COUNTED_FROM = 0.2
"""Gain of the native vector over unsteered below which a trait says nothing about transfer."""
SHARE, ENOUGH, ALL = 0.8, 5, 8
"""Share of the native vector's gain that a moved one should have, on how many traits, of how many."""


def measure(
    setup: Setup,
    source: str,
    target: str,
    sites: Sequence[str],
    traits: Sequence[str],
    directions: int = 2,
    dtype: str = "bfloat16",
    encoder: str = ENCODER,
) -> list[Row]:
    """Measure a row for each trait and condition.

    One mapper moves all traits. It is fitted on answers of the target under the instructions of the ready traits, whose wording
    and questions are others.

    Args:
        setup: the data, n and seed.
        source: model that vectors are found on.
        target: model that they are moved to.
        sites: of the two.
        traits: names of files in the data folder.
        directions: number of random directions.
        dtype: that both models are loaded in.
        encoder: of the judge.
    """
    a, b = (load_model(name, dtype=dtype) for name in (source, target))
    pair, n = (sites[0], sites[1]), min(setup.n, PARTS["test"])
    how = RunOptions(mapper="affine", equal_cost=True, n=n, n_validation=PARTS["validation"], seed=setup.seed)
    texts = answered(b, ready_prompts(setup.seed), mapper_tokens((a, b)), ANSWER_TOKENS, progress=False)
    key = pairs_key((a, b), texts, pair, how.alignment)
    fitter = Fitter(paired((a, b), texts, pair, how.alignment, False), (a, b), key, setup.kept, False)
    mapper, shuffled = fitter.fit(how.mapper, setup.seed), fitter.fit(how.mapper, setup.seed, shuffled="all")
    rows: list[Row] = []
    for name in traits:
        task, accuracy = trait_task(setup, name, b, encoder)
        vector, native = (
            extract(model, task.contrast("train"), site, task.read, seed=setup.seed, progress=False)
            for model, site in zip((a, b), pair, strict=True)
        )
        moved = mapper.transfer(vector)
        vectors = {"native": [native], "moved": [moved], "random": random_vectors(moved, directions, setup.seed)}
        vectors["shuffled"] = [shuffled.transfer(vector).normalized(moved.norm)]
        trial = Trial(b, task, how, setup.kept, False)
        strengths = trial.strengths(vectors)
        judged = {"unsteered": trial.test.unsteered(False), "system prompt": trial.test.instructed(False)}
        judged |= trial.judge(vectors, strengths)
        judged["mean ablated"] = trial.test.mean_ablated(moved.add(1.0, task.positions), False)
        rows += [_row(name, one, each, accuracy) for one, each in judged.items()]
    return rows


def trait_task(setup: Setup, name: str, model: HookedModel, encoder: str = ENCODER) -> tuple[Task, Estimate]:
    """The task of bringing a trait out, and the accuracy of its judge, which is trained on the answers of a model.

    Raises:
        ValueError: for an unknown trait, data that are missing, or fewer questions or instructions than are needed.
    """
    instructions, asked = trait_instructions(setup.data, name), _questions(setup)
    first, second = ([two[side] for two in instructions] for side in (0, 1))

    def under(part: str, prompts: Sequence[str | None]) -> list[Chat]:
        return [_chat(question, prompts[k % len(prompts)]) for k, question in enumerate(asked[part])]

    def answers(chats: Sequence[Chat]) -> list[str]:
        key = hashed([about_model(model), list(map(str, chats)), TOKENS])
        make = lambda _: [generate(model, chats, max_new_tokens=TOKENS, progress=False)]  # noqa: E731
        return setup.kept.each("answers", [key], make, list[str], at_once=1)[0]

    without = [one for opposite in second for one in (None, opposite)]
    shown = {True: under("train", first[:-1]), False: under("train", without)}  # as many of both, so that neither is likelier
    unseen = {True: under("judge", first[-1:]), False: under("judge", [None])}
    completions: list[str] = []
    labels: list[str] = []
    for wanted, chats in shown.items():
        completions += answers(chats)
        labels += [WANTED if wanted else OTHER] * len(chats)
    judge = fit_embedding_judge(load_encoder(encoder), [*shown[True], *shown[False]], completions, labels, [WANTED])
    right = [(label == WANTED) == wanted for wanted, chats in unseen.items() for label in judge.labels(chats, answers(chats))]
    pairs = {part: list(map(ContrastPair, under(part, first), under(part, second))) for part in ("train", "validation", "test")}
    task = Task.from_pairs(
        pairs,
        judge,
        name=f"trait {name}",
        read="all",
        max_new_tokens=TOKENS,
        budget=TRAIT_BUDGET,
        instruction=first[0],
        description=f"Answers that are {name}, by a classifier.",
    )
    return replace(task, prompts=lambda part: [_chat(question) for question in asked[part]]), rate(right)


def _questions(setup: Setup) -> dict[str, list[str]]:
    """The questions of each part, which share none."""
    every = setup.draw(trait_questions(setup.data), "questions of traits", sum(PARTS.values()))
    if len(every) < sum(PARTS.values()):
        raise ValueError(f"there are {len(every)} questions of traits: {sum(PARTS.values())} are needed, give the whole file")
    parts, start = {}, 0
    for part, count in PARTS.items():
        parts[part] = every[start : start + count]
        start += count
    return parts


def _chat(question: str, system: str | None = None) -> Chat:
    return Chat((*([] if system is None else [("system", system)]), ("user", question)))


def _row(trait: str, name: str, judged: Condition, accuracy: Estimate) -> Row:
    row = {"trait": trait, "condition": name, "strength": f"{judged.strength:.3g}" if judged.strength else "-"}
    measured = {"success": judged.success, "intact": judged.intact, "by words": _by_words(trait, judged.completions)}
    return {**row, **measured, "clean KL": judged.cost, "judge right": accuracy if name == "unsteered" else None}


def _by_words(trait: str, completions: Sequence[str]) -> Estimate | None:
    """Share of completions that have the trait by a rule, where there is one."""
    if trait == "concise":
        judge: Any = OneByOne(lambda _, completion: len(completion.split()) <= BRIEF, "concise")
    elif trait in ready_traits():
        judge = load(f"trait:{trait}")
    else:
        return None
    return rate([one.success for one in judge([""] * len(completions), completions)])


def chart(rows_by_case: RowsByCase) -> Chart:
    """The success of every condition on each trait."""
    by_trait: dict[str, list[Row]] = {}
    for case, rows in rows_by_case.items():
        for row in rows:
            by_trait.setdefault(f"{case.split(',')[0]}: {row['trait']}", []).append(row)
    names = ("unsteered", "system prompt", "native", "moved", "random", "shuffled", "mean ablated")
    return dots(by_trait, "answers with the trait", "success", "condition", {one: one for one in names})


def verdict(rows_by_case: RowsByCase) -> Verdict:
    """On how many traits the moved vector has enough of the native one's gain over unsteered."""
    found: dict[str, dict[str, Row]] = {}
    for case, rows in rows_by_case.items():
        for row in rows:
            found.setdefault(f"{case}: {row['trait']}", {})[str(row["condition"])] = row
    good, counted, details = 0, 0, []
    for name, rows in found.items():
        shares = {condition: estimate_of(row, "success") for condition, row in rows.items()}
        native, moved = (shares[one].value - shares["unsteered"].value for one in ("native", "moved"))
        counts = native >= COUNTED_FROM
        counted += counts
        good += counts and moved >= SHARE * native
        said = ", ".join(f"{condition} {share:.2f}" for condition, share in shares.items())
        details.append(f"{name}{'' if counts else ' (not counted)'}: {said}")
    open_ = ALL - len(found)
    answer = "yes" if good >= ENOUGH else "cannot tell" if good + open_ >= ENOUGH else "in part" if good else "no"
    sentence = (
        f"On {good} of the {counted} traits whose native vector gains at least {COUNTED_FROM:g} the moved one has at least "
        f"{SHARE:g} of that gain; {len(found)} were measured."
    )
    return Verdict(answer, sentence, tuple(details))
