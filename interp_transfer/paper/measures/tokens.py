"""Last token against all tokens (asked for by the paper's reviewers): where mapped activations are like the target's own."""

from collections.abc import Mapping, Sequence
from typing import Any

from interp_transfer.mapping.token_classes import ALL, LAST, QUARTERS, fits_by_token_class
from interp_transfer.paper.bench import bench, some
from interp_transfer.paper.rows import Found, Row, Verdict, graded, value_of


def measure(
    edition: str,
    n: int,
    seed: int,
    task: str,
    source: str,
    target: str,
    mapper: str = "autoencoder",
    settings: Mapping[str, Any] | None = None,
    sites: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Row]:
    """A row for each class of tokens of test prompts, by place and by frequency; the interval of the cosine is over rows.

    Half of the prompts show the behaviour. The two models must share a tokenizer.
    """
    b = bench(edition, task, source, target, seed, sites, options)
    fitted = b.fit(b.pairs(), mapper, seed, settings)
    both = (b.task.prompts("test"), b.task.clean("test"))
    prompts = [p for part in both for p in some(part, n, seed, "test prompts")]
    fits = fits_by_token_class(fitted, b.source.model, b.target.model, prompts, getattr(b.task, "trigger", ""))
    rows: list[Row] = []
    for by, classes in fits.items():
        for name, fit in classes.items():
            row: dict[str, Any] = {"by": by, "class": name, "cosine": fit.cosine, "FVU": fit.fvu}
            rows.append({**row, "length ratio": fit.norm_ratio, "share of the error": fit.share_of_error})
    return rows


def verdict(found: Found) -> Verdict:
    """Whether the last token is as alike as all tokens are."""
    details, alike, rare = [], 0, 0
    for case, rows in found.items():
        by_class = {str(row["class"]): row for row in rows}
        last, every = (value_of(by_class[name], "cosine") for name in (LAST, ALL))
        alike += last >= every - 0.05
        rarest, frequent = (value_of(by_class[name], "cosine") for name in (QUARTERS[0], QUARTERS[-1]))
        rare += rarest < frequent - 0.05
        told = [f"{name} {value_of(row, 'cosine'):.3f}" for name, row in by_class.items()]
        details.append(f"{case}: cosine {', '.join(told)}")
    sentence = (
        f"Mapped activations are as alike at the last token as over all tokens (cosine within 0.05) in {alike} of {len(found)} "
        f"cases; at the rarest quarter of the tokens they are less alike than at the most frequent one in {rare}."
    )
    return Verdict(graded(alike, len(found)), sentence, tuple(details))
