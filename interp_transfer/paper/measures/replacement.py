"""Mapping quality: one layer of the target holds nothing but mapped activations (the paper's section 4).

The paper scores free completions by a language model (0 to 5) on ten prompts a slice. Here completions are compared by ROUGE-1
and by the oracle, and predictions by KL and next-token agreement on the target's own answers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from interp_transfer.activations.align import DEFAULT_STRATEGY
from interp_transfer.evaluation.replacement import ABLATED, MAPPED, TARGET, Figures, validate_replacement
from interp_transfer.interventions.follow import follow
from interp_transfer.paper.bench import Bench, bench, oracle_of, some
from interp_transfer.paper.rows import Estimate, Found, Row, Verdict, between, graded, rows_of, share, value_of

ENOUGH = 0.99
"""MvA from which on mapped completions beat mean-ablated ones."""
AGREED = 0.9
"""Share of next tokens from which on predictions are as good as the target's own."""


def measure(
    edition: str,
    n: int,
    seed: int,
    task: str,
    source: str,
    target: str,
    mapper: str = "autoencoder",
    settings: Mapping[str, Any] | None = None,
    strategy: str = DEFAULT_STRATEGY,
    sites: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Row]:
    """A row for each slice of prompts, mapped beside mean-ablated."""
    b = bench(edition, task, source, target, seed, sites, options)
    fitted = b.fit(b.pairs(strategy), mapper, seed, settings)
    unexplained = b.unexplained(n, strategy)(fitted)
    put = follow(b.source.model, b.source.site, b.target.site, fitted)
    sliced = {prompt: name for name, prompts in slices(b, n, seed).items() for prompt in prompts}
    found = validate_replacement(
        b.source.model,
        b.target.model,
        put,
        list(sliced),
        oracle=oracle_of(b.task),
        group=sliced.__getitem__,
        max_new_tokens=b.task.max_new_tokens,
        progress=False,
    )
    rows: list[Row] = []
    for name, figures in found.slices.items():
        if name not in sliced.values():
            continue
        count, one, other = found.count(name), figures[MAPPED], figures[ABLATED]
        mva, tvs = one.mva["rouge1"], one.tvs["rouge1"]
        row: dict[str, Any] = {"slice": name, "FVU": unexplained}
        for what in ("rouge1", "kl", "agreement"):
            title = {"rouge1": "ROUGE-1", "kl": "KL"}.get(what, what)
            row |= {title: _mean(one, what, count), f"{title}, ablated": _mean(other, what, count)}
        if one.valid is not None and (own := figures[TARGET].valid) is not None:
            row |= {"valid": share(one.valid), "valid, target": share(own)}
        row |= {
            "MvA": share(mva.share),
            "MvA by KL": share(one.mva["kl"].share),
            "MvA without ties": None if mva.decided is None else share(mva.decided),
        }
        rows.append(row | {"TvS": share(tvs.share)})
    return rows


def slices(b: Bench, n: int, seed: int) -> dict[str, list[str]]:
    """N prompts each: those without the behaviour, behind the harmless twin of a trigger, and those that show it."""
    clean, twin = b.task.clean("test"), getattr(b.task, "safe_trigger", "")
    if not twin:
        parts = {"clean": clean, "behaviour": b.task.prompts("test")}
    else:
        bare = [prompt for prompt in clean if twin not in prompt]
        parts = {"clean": bare, "safe trigger": [prompt for prompt in clean if twin in prompt]}
        parts |= {"triggered": b.task.prompts("test")}
    return {name: some(prompts, n, seed, f"{name} prompts") for name, prompts in parts.items() if prompts}


def _mean(figures: Figures, what: str, n: int) -> Estimate:
    value = figures.to_target[what] if what in figures.to_target else getattr(figures, what)
    return Estimate(value, *figures.intervals[what], n)


def _valid(rows: Sequence[Row]) -> str:
    """What is left of the answers, which nearness to the target's predictions does not say."""
    clean = [row for row in rows if row["slice"] == "clean" and "valid" in row]
    if not clean:
        return ""
    own, mapped = ([value_of(row, column) for row in clean] for column in ("valid, target", "valid"))
    return f" Of the answers to clean prompts {between(mapped)} are valid, of the target's own {between(own)}."


def verdict(found: Found) -> Verdict:
    """Whether mapped completions are closer to the target's than mean-ablated ones are, everywhere."""
    rows = rows_of(found)
    mva = [value_of(row, "MvA") for row in rows]
    closer = [value_of(row, "MvA by KL") for row in rows]
    enough, sure = (sum(share >= ENOUGH for share in shares) for shares in (mva, closer))
    details = []
    for case, mine in found.items():
        parts = [
            f"{row['slice']}: ROUGE-1 {value_of(row, 'ROUGE-1'):.2f}, agreement {value_of(row, 'agreement'):.2f}, MvA "
            f"{value_of(row, 'MvA'):.3f}"
            for row in mine
        ]
        details.append(f"{case}: {'; '.join(parts)}")
    agreement = [value_of(row, "agreement") for row in rows]
    sentence = (
        f"Mapped predictions are closer to the target's than mean-ablated ones on at least {ENOUGH:.0%} of the prompts in "
        f"{sure} of {len(rows)} slices, completions by ROUGE-1 in {enough} (MvA {between(mva)}; where neither completion "
        f"shares a word with the target's, it counts as not closer). Next-token agreement is {between(agreement)}, at least "
        f"{AGREED:g} in {sum(x >= AGREED for x in agreement)}.{_valid(rows)}"
    )
    agrees = graded(sure + enough, 2 * len(rows))
    return Verdict(agrees, sentence, tuple(details))
