"""How success grows with the strength, native, moved and random (figures 4 and 8)."""

from collections.abc import Mapping, Sequence
from typing import Any

from interp_transfer.evaluation.evaluator import random_like
from interp_transfer.paper.bench import bench
from interp_transfer.paper.rows import Found, Row, Verdict, graded, share, value_of


def measure(
    edition: str,
    n: int,
    seed: int,
    task: str,
    source: str,
    target: str,
    strengths: Sequence[float],
    mapper: str = "autoencoder",
    settings: Mapping[str, Any] | None = None,
    sites: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Row]:
    """A row for each strength; random vectors have the moved one's length, five draws pooled."""
    b = bench(edition, task, source, target, seed, sites, options)
    here, test = b.target, b.target.test(n)
    moved = b.fit(b.pairs(), mapper, seed, settings).transfer(b.source.vector)
    rows: list[Row] = []
    for x in strengths:
        given = [
            [(here.steer(here.vector, x),)],
            [(here.steer(moved, x),)],
            [(r,) for r in random_like(here.steer(moved, x), seed)],
        ]
        row: dict[str, Any] = {"strength": f"{x:g}"}
        for name, judged in zip(("native", "moved", "random"), test.judge_each(given, [x] * 3, progress=False), strict=True):
            row |= {f"{name}, success": share(judged.success), f"{name}, intact": share(judged.intact)}
            row |= {f"{name}, clean KL": judged.cost}
        rows.append(row)
    return rows


def verdict(found: Found) -> Verdict:
    """Whether the moved vector collapses at strengths at which the native one still works."""
    details, collapses = [], 0
    for case, rows in found.items():
        told, kept = [], {}
        for name in ("native", "moved", "random"):
            curve = [value_of(row, f"{name}, intact") for row in rows]
            peak = max(curve)
            kept[name] = curve[-1] / peak if peak else 0.0
            told.append(
                f"{name} {peak:.2f} at {rows[curve.index(peak)]['strength']}, {curve[-1]:.2f} at {rows[-1]['strength']}"
            )
        collapses += kept["moved"] < 0.5 <= kept["native"]
        details.append(f"{case}: most intact, and at the largest strength: {'; '.join(told)}")
    sentence = f"The moved vector alone collapses at large strengths in {collapses} of {len(found)} cases."
    return Verdict(graded(collapses, len(found)), sentence, tuple(details))
