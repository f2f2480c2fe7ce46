"""How much data a move takes: texts that the mapper is fitted on, and pairs that the vector is found on (Appendix I)."""

from collections.abc import Mapping, Sequence
from typing import Any

from interp_transfer.paper.bench import bench
from interp_transfer.paper.rows import Found, Row, Verdict, estimate_of, graded, share, value_of
from interp_transfer.vectors.extract import extract


def measure(
    edition: str,
    n: int,
    seed: int,
    task: str,
    source: str,
    target: str,
    texts: Sequence[int],
    contrasts: Sequence[int],
    mapper: str = "autoencoder",
    settings: Mapping[str, Any] | None = None,
    sites: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Row]:
    """A row for each number of texts with all pairs, and for each number of pairs with all texts."""
    b = bench(edition, task, source, target, seed, sites, options)
    here, test = b.target, b.target.test(n)
    every, pairs = b.task.texts("train"), b.task.contrast("train")
    unexplained = b.unexplained(n)
    rows: list[Row] = []

    def row(what: str, count: int, mapper_of: Any, vector: Any) -> None:
        moved = mapper_of.transfer(vector)
        x = here.fair(moved)
        judged = test.judge([(here.steer(moved, x),)], x, progress=False)
        first = {"what is limited": what, "number": count, "FVU": unexplained(mapper_of)}
        first |= {"cosine to native": moved.cosine(here.vector), "strength": f"{x:g}"}
        rows.append({**first, "success": share(judged.success), "intact": share(judged.intact)})

    whole = b.fit(b.pairs(), mapper, seed, settings)
    for count in texts:
        fitted = whole if count >= len(every) else b.fit(b.pairs(texts=every[:count]), mapper, seed, settings)
        row("texts of the mapper", min(count, len(every)), fitted, b.source.vector)
    for count in contrasts:
        row(
            "pairs of the vector",
            min(count, len(pairs)),
            whole,
            extract(b.source.model, pairs[:count], b.source.site, seed=seed),
        )
    return rows


def verdict(found: Found) -> Verdict:
    """Whether more data helps, and where it stops helping."""
    details, grows = [], 0
    for case, rows in found.items():
        for what in dict.fromkeys(str(row["what is limited"]) for row in rows):
            mine = [row for row in rows if row["what is limited"] == what]
            first, last = (estimate_of(row, "intact") for row in (mine[0], mine[-1]))
            grows += last.low > first.high
            details.append(f"{case}, {what}: {', '.join(_point(row) for row in mine)}")
    sentence = f"More data leaves clearly more answers intact in {grows} of {len(details)} curves."
    return Verdict(graded(grows, len(details)), sentence, tuple(details))


def _point(row: Row) -> str:
    return f"{row['number']}: {value_of(row, 'intact'):.2f}"
