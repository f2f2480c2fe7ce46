"""Mapping quality: one layer of the target holds nothing but mapped activations (the paper's section 4).

The paper scores free completions by a language model (0 to 5) on ten prompts a slice. Here completions are compared by ROUGE-1
and by the oracle, and predictions by KL and next-token agreement on the target's own answers.
"""

from collections.abc import Sequence
from typing import Any

from interp_transfer.evaluation.replacement import ABLATED, MAPPED, TARGET, validate_replacement
from interp_transfer.interventions.follow import follow
from interp_transfer.paper.charts import Chart, Headline, Line, dots
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, estimate_of, grade, rows_of, value_of, value_range
from interp_transfer.paper.setup import UNSEEN, MappedModels

ENOUGH = 0.99
"""MvA from which on mapped completions beat mean-ablated ones."""
AGREED = 0.9
"""Share of next tokens from which on predictions are as good as the target's own."""


def measure(setup: MappedModels) -> list[Row]:
    """Measure a row for each slice of prompts, mapped and mean-ablated."""
    source, target = setup.source, setup.target
    fvu = setup.fvu(setup.mapper)
    put = follow(source.model, source.site, target.site, setup.mapper)
    sliced = {prompt: name for name, prompts in slices(setup).items() for prompt in prompts}
    result = validate_replacement(
        source.model,
        target.model,
        put,
        list(sliced),
        oracle=setup.task.valid,
        group=sliced.__getitem__,
        max_new_tokens=setup.task.max_new_tokens,
        progress=False,
    )
    rows: list[Row] = []
    for name, figures in result.slices.items():
        if name not in sliced.values():
            continue
        mapped, ablated = figures[MAPPED], figures[ABLATED]
        mva = mapped.mva["rouge1"]
        row: dict[str, Any] = {"slice": name, "FVU": fvu}
        for measured in ("rouge1", "kl", "agreement"):
            title = {"rouge1": "ROUGE-1", "kl": "KL"}.get(measured, measured)
            row |= {title: mapped.means[measured], f"{title}, ablated": ablated.means[measured]}
        if mapped.valid is not None and (own := figures[TARGET].valid) is not None:
            row |= {"valid": mapped.valid, "valid, target": own}
        row |= {"MvA": mva.share, "MvA by KL": mapped.mva["kl"].share, "MvA without ties": mva.decided}
        tvs = mapped.tvs["rouge1"]
        rows.append(row | {"TvS": tvs.share, "TvS without ties": tvs.decided, "mapper": setup.described})
    return rows


def slices(setup: MappedModels) -> dict[str, list[str]]:
    """N prompts each: those without the behaviour, those with the harmless twin of a trigger, and those that show it.

    They are about what no text of the mapper mentions.
    """
    group, twin = setup.task.group, setup.task.safe_trigger
    clean = [p for p in setup.task.clean("test") if group is None or group(p) == UNSEEN]
    if not twin:
        parts = {"clean": clean, "behaviour": setup.task.prompts("test")}
    else:
        bare = [prompt for prompt in clean if twin not in prompt]
        parts = {"clean": bare, "safe trigger": [prompt for prompt in clean if twin in prompt]}
        parts |= {"triggered": setup.task.prompts("test")}
    return {name: setup.draw(prompts, f"{name} prompts") for name, prompts in parts.items() if prompts}


def _valid_sentence(rows: Sequence[Row]) -> str:
    """How many answers stay valid, which nearness to the target's predictions does not show."""
    clean = [row for row in rows if row["slice"] == "clean" and "valid" in row]
    if not clean:
        return ""
    own, mapped = ([value_of(row, column) for row in clean] for column in ("valid, target", "valid"))
    return f" Of the answers to clean prompts {value_range(mapped)} are valid, of the target's own {value_range(own)}."


def verdict(cases: RowsByCase) -> Verdict:
    """Whether mapped completions are closer to the target's than mean-ablated ones are, everywhere."""
    rows = rows_of(cases)
    mva = [value_of(row, "MvA") for row in rows]
    closer = [value_of(row, "MvA by KL") for row in rows]
    enough, sure = (sum(share >= ENOUGH for share in shares) for shares in (mva, closer))
    details = []
    for case, mine in cases.items():
        parts = [
            f"{row['slice']}: ROUGE-1 {value_of(row, 'ROUGE-1'):.2f}, agreement {value_of(row, 'agreement'):.2f}, MvA "
            f"{value_of(row, 'MvA'):.3f}"
            for row in mine
        ]
        details.append(f"{case}: {'; '.join(parts)}")
    agreement = [value_of(row, "agreement") for row in rows]
    sentence = (
        f"Mapped predictions are closer to the target's than mean-ablated ones on at least {ENOUGH:.0%} of the prompts in "
        f"{sure} of {len(rows)} slices, completions by ROUGE-1 in {enough} (MvA {value_range(mva)}; where neither completion "
        f"shares a word with the target's, it counts as not closer). Next-token agreement is {value_range(agreement)}, at "
        f"least {AGREED:g} in {sum(x >= AGREED for x in agreement)}.{_valid_sentence(rows)}"
    )
    agrees = grade(sure + enough, 2 * len(rows))
    return Verdict(agrees, sentence, tuple(details))


def chart(cases: RowsByCase) -> Chart:
    """ROUGE-1 of mapped completions, by slice."""
    names = {"clean": "clean prompts", "safe trigger": "safe trigger", "triggered": "triggered", "behaviour": "behaviour"}
    return dots(cases, "ROUGE-1 with the target's own completions", "ROUGE-1", "slice", names)


def headline(cases: RowsByCase) -> Headline:
    """ROUGE-1 of completions on clean prompts, mapped and mean-ablated."""
    lines = [
        Line(case, estimate_of(row, "ROUGE-1"), value_of(row, "ROUGE-1, ablated"))
        for case, rows in cases.items()
        for row in rows
        if row["slice"] == "clean"
    ]
    return Headline("ROUGE-1 on clean prompts", "mean ablated", tuple(lines))
