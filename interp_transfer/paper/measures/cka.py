"""CKA of two models, layer by layer, compared with rows that are paired at random."""

import math
from typing import Any

from plotly.graph_objects import Figure

from interp_transfer.evaluation.similarity import layerwise_cka
from interp_transfer.models.sites import layer_of
from interp_transfer.paper.rows import Row, RowsByCase
from interp_transfer.paper.setup import TwoModels
from interp_transfer.plots.heatmap import layer_heatmap


def measure(setup: TwoModels) -> list[Row]:
    """Measure a row for each layer of the source: CKA with each layer of the target, and the highest by chance."""
    a, b = setup.source, setup.target
    prompts = setup.draw(setup.task.prompts("test"), "prompts")
    values, chance = layerwise_cka(a.model, b.model, prompts, progress=False)
    first: dict[str, Any] = {"source": a.name, "target": b.name, "n": len(prompts)}
    first |= {"source layer steered": layer_of(a.site), "target layer steered": layer_of(b.site)}
    first["highest by chance"] = float(chance.nan_to_num(-1).max())
    return [{**first, "layer": k, **{str(j): float(x) for j, x in enumerate(row)}} for k, row in enumerate(values.tolist())]


def tables(name: str, rows_by_case: RowsByCase) -> dict[str, list[Row]]:
    """A row for each pair of models."""
    lines: list[Row] = []
    for rows in rows_by_case.values():
        first, values = rows[0], _values(list(rows))
        highest = max((x, r, c) for r, row in enumerate(values) for c, x in enumerate(row) if not math.isnan(x))
        s, t = int(str(first["source layer steered"])), int(str(first["target layer steered"]))
        line: dict[str, Any] = {"models": f"{first['source']}, {first['target']}", "highest CKA": highest[0]}
        line |= {"at layers": f"{highest[1]}, {highest[2]}", "at the layers that are steered": f"{values[s][t]:.3f} ({s}, {t})"}
        lines.append({**line, "paired at random, at most": first["highest by chance"]})
    return {name: lines}


def figures(rows_by_case: RowsByCase) -> dict[str, Figure]:
    """A heat map of each pair of models."""
    pictures = {}
    for rows in rows_by_case.values():
        source, target = str(rows[0]["source"]), str(rows[0]["target"])
        title = f"CKA, last token of {rows[0]['n']} test prompts"
        figure = layer_heatmap(_values(list(rows)), source, target, title)
        pictures[f"cka-{source}-{target}.png"] = figure.update_layout(width=560, height=420)
    return pictures


def _values(rows: list[Row]) -> list[list[float]]:
    columns = [name for name in rows[0] if name.isdigit()]
    return [[math.nan if (x := row[name]) is None else float(str(x)) for name in columns] for row in rows]
