"""What a refusal vector costs elsewhere: safe prompts refused, perplexity, truth, and answers that get long or go in circles.

Vectors and strengths are those of `real_refusal`. Of each prompt or text the same figure is measured under every condition, so
that differences are paired.
"""

from collections.abc import Mapping, Sequence

import torch

from interp_transfer.evaluation.capability.costs import whole_texts
from interp_transfer.evaluation.evaluator import RANDOM_PROMPTS, Evaluator
from interp_transfer.evaluation.judges.refusal import RefusalJudge
from interp_transfer.evaluation.judges.rules import RepetitionJudge
from interp_transfer.interventions.follow import follow
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.interventions.predictions import predicted, teacher_forced_each
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.tokens import tokenize, tokenizer_of
from interp_transfer.paper.charts import Chart, Dots, dots
from interp_transfer.paper.given import TOPICS, safe_prompts, statements
from interp_transfer.paper.measures.real_refusal import DIRECTIONS, MAIN, refusal_task, searched
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, estimate_of, grade, value_of
from interp_transfer.paper.setup import Setup
from interp_transfer.prompts.chats import as_user_message
from interp_transfer.prompts.english import english_texts
from interp_transfer.stats import Estimate, mean_interval, paired_difference, rate

Setting = tuple[Intervention, ...]
XSTEST, HARMLESS, TRUTH = "XSTest's safe prompts refused", "harmless prompts refused", "truth answered"
ALPACA, ENGLISH = "loss on Alpaca's answers", "loss on English"
LENGTH, CIRCLES = "words of an answer", "answers in circles"
DECIDE = (XSTEST, HARMLESS, ALPACA, ENGLISH, TRUTH)
"""Measures on which the moved vector should be within ``NEAR`` of the native one; losses are in nats per token."""
NEAR, PAIRS = 0.03, 2
REPLACED = "full replacement"
COMPARED = (("moved", "native"), ("random", "native"), (REPLACED, "native"), ("native", "unsteered"), ("moved", "unsteered"))
DECIDES = "moved minus native"
QUESTION = 'Is this statement true or false? Answer with one word, "True" or "False".\n\n{}'
WORDS = (("False", "false"), ("True", "true"))


def measure(
    setup: Setup,
    source: str,
    target: str,
    sites: Sequence[str],
    conditions: Sequence[str] = MAIN,
    directions: int = DIRECTIONS,
    dtype: str = "bfloat16",
) -> list[Row]:
    """Measure a row for each condition, and for differences between two of them.

    Args:
        setup: the data, n and seed.
        source: model that the refusal vector is found on.
        target: model that it is moved to.
        sites: of the two.
        conditions: whose strengths are searched besides those of native and moved. With those of a case of refusal, what that
            case has kept is not searched again. Few prompts take a single random direction alone.
        directions: number of random directions that are searched; the first one's cost is measured.
        dtype: that both models are loaded in.
    """
    task = refusal_task(setup, "ablate")
    if setup.n < RANDOM_PROMPTS:  # a quick run
        conditions, directions = MAIN, 1
    found = searched(setup, task, (source, target), sites, conditions, directions, dtype)
    (a, b), test = found.models, found.trial.test
    settings: dict[str, Setting] = {"unsteered": ()}
    for name in ("native", "moved", "random"):
        settings[name] = (add(found.vectors[name][0], found.strengths[name][0], task.positions),)
    settings[REPLACED] = (follow(a, sites[0], sites[1], found.mapper),)
    outcomes = _outcomes(setup, b, test, settings)
    strengths = {name: f"{found.strengths[name][0]:.3g}" if name in found.strengths else "-" for name in settings}
    rows: list[Row] = []
    for name in settings:
        values = {what: _mean(each[name]) for what, each in outcomes.items()}
        rows.append({"condition": name, "strength": strengths[name], **values})
    for one, other in COMPARED:
        values = {what: _difference(each[one], each[other]) for what, each in outcomes.items()}
        rows.append({"condition": f"{one} minus {other}", "strength": "-", **values})
    return rows


Outcomes = Mapping[str, Sequence[bool] | Sequence[float]]
"""By condition, a figure of each prompt or text."""


def _outcomes(setup: Setup, model: HookedModel, test: Evaluator, settings: Mapping[str, Setting]) -> dict[str, Outcomes]:
    each, names = list(settings.values()), list(settings)
    judge, found = RefusalJudge(refused=True), {}
    answers: dict[str, list[str]] = {name: [] for name in names}
    safe = [as_user_message(text) for text in setup.draw(safe_prompts(setup.data), "safe prompts")]
    for what, prompts in ((XSTEST, safe), (HARMLESS, test.task.clean("test")[: setup.n])):
        asked = Evaluator(model, test.task, tuple(prompts), test.clean_kl, test.kept)
        completions = dict(zip(names, asked.completions(each, progress=False), strict=True))
        found[what] = {name: [v.success for v in judge(prompts, texts)] for name, texts in completions.items()}
        answers = {name: answers[name] + completions[name] for name in names}
    clean, english = test.clean_kl, whole_texts(model, english_texts(setup.n, at_most=True))
    forced = {
        ALPACA: teacher_forced_each(model, clean.prompts, clean.answers, each, skip=clean.skip or None),
        ENGLISH: teacher_forced_each(model, *english, each),
    }
    for what, by_setting in forced.items():
        found[what] = {name: one.loss.tolist() for name, one in zip(names, by_setting, strict=True)}
    found[TRUTH] = _truth(setup, model, settings)
    found[LENGTH] = {name: [float(len(text.split())) for text in texts] for name, texts in answers.items()}
    found[CIRCLES] = {name: [not v.success for v in RepetitionJudge()(texts, texts)] for name, texts in answers.items()}
    return found


@torch.no_grad()
def _truth(setup: Setup, model: HookedModel, settings: Mapping[str, Setting]) -> Outcomes:
    """Whether the model holds each statement for what it is, by the likelier of the two words that the question asks for."""
    each = -(-setup.n // (2 * len(TOPICS)))
    sides = [statements(setup.data, topic, "test") for topic in TOPICS]
    told = [(text, bool(k)) for side in sides for k in (0, 1) for text in setup.draw(side[k], "statements", each)][: setup.n]
    prompts = tokenize(model, [as_user_message(QUESTION.format(text)) for text, _ in told])
    tokenizer = tokenizer_of(model)
    ids = [[tokenizer.encode(word, add_special_tokens=False)[0] for word in words] for words in WORDS]
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    last = torch.arange(int(lengths.max())) == lengths[:, None] - 1
    placed = {"prompt_lengths": lengths, "rows": torch.arange(len(prompts))}
    answered: dict[str, list[bool]] = {}
    for name, setting in settings.items():
        chances = predicted(model, prompts, last, *setting, **(placed if setting else {})).cpu()
        no, yes = (chances[:, words].logsumexp(dim=1) for words in ids)
        answered[name] = [bool(says) == label for says, (_, label) in zip(yes > no, told, strict=True)]
    return answered


def _mean(values: Sequence[bool] | Sequence[float]) -> Estimate:
    return rate([bool(v) for v in values]) if isinstance(values[0], bool) else mean_interval(values)


def _difference(one: Sequence[bool] | Sequence[float], other: Sequence[bool] | Sequence[float]) -> Estimate:
    """The mean paired difference with its 95% interval."""
    if isinstance(one[0], bool):
        d = paired_difference([bool(v) for v in one], [bool(v) for v in other])
        return Estimate(d.difference, d.low, d.high, d.n)
    return mean_interval([x - y for x, y in zip(one, other, strict=True)])


def verdict(rows_by_case: RowsByCase) -> Verdict:
    """On how many measures the moved vector is within ``NEAR`` of the native one, on all pairs together."""
    details, good, total, sure = [], 0, 0, 0
    for case, rows in rows_by_case.items():
        [row] = [row for row in rows if row["condition"] == DECIDES]
        differences = {what: value_of(row, what) for what in DECIDE}
        good += sum(abs(value) <= NEAR + 1e-9 for value in differences.values())
        total += len(differences)
        details.append(f"{case}, {DECIDES}: {', '.join(f'{value:+.3f} {what}' for what, value in differences.items())}")
        sure += sum(max(-one.low, one.high) <= NEAR for one in (estimate_of(row, what) for what in DECIDE))
        [before] = [row for row in rows if row["condition"] == "moved minus unsteered"]
        more = estimate_of(before, HARMLESS)
        details.append(
            f"{case}, harmless prompts refused, moved minus unsteered: {more.value:+.2f} [{more.low:+.2f}, {more.high:+.2f}]"
        )
    pairs = len(rows_by_case)
    sentence = f"Moved is within {NEAR:g} of native on {good} of {total} measures of {pairs} pairs; {sure} intervals are."
    all_good_yet = good == total and len(rows_by_case) < PAIRS
    return Verdict("cannot tell" if all_good_yet else grade(good, total), sentence, tuple(details))


def chart(rows_by_case: RowsByCase) -> Chart:
    """The shares that decide, under every condition."""
    names = {name: name for name in ("unsteered", "native", "moved", "random", REPLACED)}
    found: dict[str, Mapping[str, Estimate]] = {}
    for what in (XSTEST, HARMLESS, TRUTH):
        found |= {f"{case}, {what}": one for case, one in dots(rows_by_case, what, what, "condition", names).cases.items()}
    return Dots("share of prompts", found)
