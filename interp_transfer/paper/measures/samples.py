"""How much data a move takes: texts that the mapper is fitted on, and pairs that the vector is found on (Appendix I)."""

from collections.abc import Sequence

from interp_transfer.mapping.mappers import Mapper
from interp_transfer.paper.charts import Chart, Curves, Headline, Line, curves
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, estimate_of, grade, value_of
from interp_transfer.paper.setup import MappedModels, shares
from interp_transfer.vectors.extract import extract
from interp_transfer.vectors.vector import SteeringVector


def measure(setup: MappedModels, texts: Sequence[int], contrasts: Sequence[int]) -> list[Row]:
    """Measure a row for each number of texts with all pairs, and for each number of pairs with all texts."""
    source = setup.source
    all_texts, pairs = setup.task.texts("train"), setup.task.contrast("train")
    rows = []
    for count in texts:
        mapper = setup.mapper if count >= len(all_texts) else setup.fit_texts(all_texts[:count])
        rows.append(_row(setup, "texts of the mapper", min(count, len(all_texts)), mapper, source.vector))
    for count in contrasts:
        vector = extract(source.model, pairs[:count], source.site, seed=setup.seed)
        rows.append(_row(setup, "pairs of the vector", min(count, len(pairs)), setup.mapper, vector))
    return rows


def _row(setup: MappedModels, limited: str, count: int, mapper: Mapper, vector: SteeringVector) -> Row:
    target, moved = setup.target, mapper.transfer(vector)
    strength = target.fair_strength(moved)
    judged = target.judge(moved, strength)
    first = {"what is limited": limited, "number": count, "FVU": setup.fvu(mapper)}
    first |= {"cosine to native": moved.cosine(target.vector), "strength": f"{strength:.3g}"}
    return {**first, **shares(judged)}


def verdict(cases: RowsByCase) -> Verdict:
    """Whether more data helps, and where it stops helping."""
    details, grows = [], 0
    for case, rows in cases.items():
        for what in dict.fromkeys(str(row["what is limited"]) for row in rows):
            mine = [row for row in rows if row["what is limited"] == what]
            first, last = (estimate_of(row, "intact") for row in (mine[0], mine[-1]))
            grows += last.low > first.high
            details.append(f"{case}, {what}: {', '.join(_point(row) for row in mine)}")
    sentence = f"More data leaves clearly more answers intact in {grows} of {len(details)} curves."
    return Verdict(grade(grows, len(details)), sentence, tuple(details))


def _point(row: Row) -> str:
    return f"{row['number']}: {value_of(row, 'intact'):.2f}"


def chart(cases: RowsByCase) -> Chart:
    """Intact answers and success by number of texts, and of pairs."""
    return _curves(cases)


def _curves(cases: RowsByCase) -> Curves:
    panels: dict[str, list[Row]] = {}
    for case, rows in cases.items():
        for row in rows:
            panels.setdefault(f"{case}: {row['what is limited']}", []).append(row)
    return curves(panels, "share of prompts", ("number", "number"), {"intact": "intact", "success": "success"})


def headline(cases: RowsByCase) -> Headline:
    """Intact answers with all data, and with the least."""
    lines = [
        Line(case, lines["intact"][-1][1], lines["intact"][0][1].value)
        for case, rows in cases.items()
        for lines in _curves({case: rows}).cases.values()
    ]
    return Headline("intact with all data", "with the least", tuple(lines))
