"""Last token against all tokens (asked for by the paper's reviewers): where mapped activations are like the target's own."""

from interp_transfer.mapping.token_classes import ALL, LAST, QUARTERS, fits_by_token_class
from interp_transfer.paper.charts import Chart, Headline, dots, headline_of, two_rows
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, grade, value_of
from interp_transfer.paper.setup import MappedModels


def measure(setup: MappedModels) -> list[Row]:
    """Measure a row for each class of tokens of test prompts, by position and by frequency.

    Half of the prompts show the behaviour. The interval of the cosine is over rows. The two models must share a tokenizer.
    """
    task = setup.task
    prompts = [p for part in (task.prompts("test"), task.clean("test")) for p in setup.draw(part, "test prompts")]
    fits = fits_by_token_class(setup.mapper, setup.source.model, setup.target.model, prompts, task.trigger)
    rows: list[Row] = []
    for by, classes in fits.items():
        for name, fit in classes.items():
            first = {"by": by, "class": name, "cosine": fit.cosine, "FVU": fit.fvu}
            rows.append({**first, "length ratio": fit.norm_ratio, "share of the error": fit.share_of_error})
    return rows


def verdict(cases: RowsByCase) -> Verdict:
    """Whether the last token is as alike as all tokens are."""
    details, alike, rare = [], 0, 0
    for case, rows in cases.items():
        by_class = {str(row["class"]): row for row in rows}
        last, every = (value_of(by_class[name], "cosine") for name in (LAST, ALL))
        alike += last >= every - 0.05
        rarest, frequent = (value_of(by_class[name], "cosine") for name in (QUARTERS[0], QUARTERS[-1]))
        rare += rarest < frequent - 0.05
        summary = [f"{name} {value_of(row, 'cosine'):.3f}" for name, row in by_class.items()]
        details.append(f"{case}: cosine {', '.join(summary)}")
    sentence = (
        f"Mapped activations are as alike at the last token as over all tokens (cosine within 0.05) in {alike} of {len(cases)} "
        f"cases; at the rarest quarter of the tokens they are less alike than at the most frequent one in {rare}."
    )
    return Verdict(grade(alike, len(cases)), sentence, tuple(details))


def chart(cases: RowsByCase) -> Chart:
    """Cosine by class of tokens."""
    names = {ALL: "all tokens", LAST: "last token", QUARTERS[0]: QUARTERS[0], QUARTERS[-1]: QUARTERS[-1]}
    return dots(cases, "cosine of mapped activations with the target's own", "cosine", "class", names)


def headline(cases: RowsByCase) -> Headline:
    """Cosine of mapped activations with the target's own, over all tokens and at the last one."""
    return headline_of(cases, "cosine, all tokens", "last token", two_rows("cosine", "class", ALL, LAST))
