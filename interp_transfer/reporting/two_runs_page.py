"""Two runs of one task on one HTML page that opens offline: their options, their outcomes, and the completions that changed.

The runs are called A and B, and every difference is A minus B. `reporting.two_runs` explains how they are compared.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from interp_transfer.plots.conditions import run_bars
from interp_transfer.plots.style import styles
from interp_transfer.reporting.completions import EXAMPLES, LONGEST, READABLE, cut, shown_completion
from interp_transfer.reporting.formats import number_of_answers
from interp_transfer.reporting.render import render, write_page
from interp_transfer.reporting.report import GLOSSARY, models_of
from interp_transfer.reporting.run_folder import ResultJson, read_run
from interp_transfer.reporting.two_runs import MEASURES, Compared, TwoRuns, compare_runs
from interp_transfer.stats import CONFIDENCE, MARGIN

LETTERS = ("A", "B")
RESOLVED = (
    *("task", "direction", "source", "target", "source_site", "target_site"),
    *("mapper", "mode", "norm", "settings", "budget", "directions", "seeds", "seed"),
)
"""Options that are listed as the run resolved them, not as they were passed."""


def write_two_runs(folder: str | Path, against: str | Path, out: str | Path | None = None) -> Path:
    """Write a page on two runs of one task.

    Args:
        folder: of the first run, A.
        against: of the second, B.
        out: the page; default: ``against-NAME.html`` in the first folder.

    Returns:
        The page's path. An older page is replaced at once.

    Raises:
        ValueError: when a folder holds no run, both are the same, their tasks differ, the page's name does not end in .html, or
            it cannot be written.
    """
    one, other = Path(folder), Path(against)
    if one.resolve() == other.resolve():
        raise ValueError(f"{one} and {other} are the same folder: give --against another run's")
    if out is not None and Path(out).suffix != ".html":
        raise ValueError(f"the page is HTML and may replace a file: {str(out)!r} does not end in .html")
    runs = compare_runs(read_run(one), read_run(other))
    path = Path(out) if out is not None else one / f"against-{other.resolve().name}.html"
    return write_page(page(runs, names(one, other)), path)


def names(one: Path, other: Path) -> tuple[str, str]:
    """Return the shortest ends of two paths that differ."""
    first, second = one.resolve().parts, other.resolve().parts
    for last in range(1, max(len(first), len(second))):
        if first[-last:] != second[-last:]:
            return str(Path(*first[-last:])), str(Path(*second[-last:]))
    return str(one), str(other)


def page(runs: TwoRuns, folders: tuple[str, str]) -> str:
    """Return the whole page.

    Args:
        runs: the two runs.
        folders: the names of A and B.
    """
    results = (runs.a.result, runs.b.result)
    sizes = [len(run.completions["prompts"]) for run in (runs.a, runs.b)]
    every = list(dict.fromkeys(name for result in results for name in result["conditions"]))
    judged = [
        (name, letter, result["conditions"][name])
        for name in every
        for letter, result in zip(LETTERS, results, strict=True)
        if name in result["conditions"]
    ]
    rows = settings(*results)
    compared: dict[str, list[Compared]] = {}
    for each in runs.compared:
        compared.setdefault(each.condition, []).append(each)
    return render(
        "two_runs.html.j2",
        figures={"figure-conditions": run_bars(judged)},
        title=verdict(runs),
        runs=[
            {"letter": letter, "folder": folder, "models": models_of(result), "counts": number_of_answers(result["conditions"])}
            | {part: result.get(part) for part in ("mapper", "vector")}
            | {"moved": result["conditions"].get("moved")}
            for letter, folder, result in zip(LETTERS, folders, results, strict=True)
        ],
        task=results[0]["task"],
        moved=_moved(runs),
        differing=[row for row in rows if row[1] != row[2]],
        same=[row for row in rows if row[1] == row[2]],
        longest=LONGEST,
        looks=styles(every),
        judged=judged,
        sizes=sizes,
        common=len(runs.common),
        paired=runs.paired,
        pooled=any(c["success"]["n"] != sizes[LETTERS.index(letter)] for _, letter, c in judged),
        margin=100 * MARGIN,
        measures=list(MEASURES),
        compared=compared,
        shown=[c for c in runs.compared if c.adjusted < 1 - CONFIDENCE],
        comparisons=len(runs.compared),
        changes=_changes(runs),
    )


def verdict(runs: TwoRuns) -> str:
    """Return what is shown of the moved vector's intact answers, in one sentence."""
    moved = _moved(runs)
    if moved is None:
        return "Comparison of two runs"
    d = moved.difference
    if moved.adjusted < 1 - CONFIDENCE:
        more = "more" if d.difference > 0 else "fewer"
        small = f", by less than {100 * d.margin:g} points" if d.equivalent else ""
        return f"The moved vector preserves {more} answers in run A than in run B{small}."
    if d.equivalent:
        return f"The moved vector preserves as many answers in run A as in run B, to within {100 * d.margin:g} points."
    return "The moved vector's intact answers are shown neither to differ between run A and run B nor to be equivalent."


def _moved(runs: TwoRuns) -> Compared | None:
    return next((c for c in runs.compared if (c.condition, c.measure) == ("moved", "intact")), None)


def settings(a: ResultJson, b: ResultJson) -> list[tuple[str, str, str]]:
    """Return the settings of both runs by field, with the models, sites and strengths that defaults were resolved to."""
    one, other = (dict(_flat("", _settings(result))) for result in (a, b))
    return [(field, one.get(field, "\u2013"), other.get(field, "\u2013")) for field in dict.fromkeys([*one, *other])]


def _settings(result: ResultJson) -> dict[str, Any]:
    options, mapper = result.get("options") or result.get("asked") or {}, result.get("mapper")
    return {
        **{name: result.get(name) for name in ("task", "direction", "source", "target")},
        "mapper": {key: mapper.get(key) for key in ("kind", "mode", "norm", "settings")} if mapper else None,
        **{name: value for name, value in options.items() if name not in RESOLVED},
        "strength rule": result.get("strength_rule"),
        "seed": result["seed"],
        "version of": result["versions"],
    }


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """The values of nested mappings as text, each with its keys as one name; None is left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name} {key}".strip().replace("_", " "), inner)
    elif value is not None:
        yield name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _changes(runs: TwoRuns) -> dict[str, Any] | None:
    """How many outcomes of the moved vector (or another condition) changed, and the first examples; None without a pair."""
    a, b = (run.completions["conditions"] for run in (runs.a, runs.b))
    shared = [name for name in a if name in b]
    if not shared or not runs.common:
        return None
    name = "moved" if "moved" in shared else next((n for n in shared if n not in GLOSSARY), shared[0])
    pairs = [(i, a[name][i], b[name][j]) for i, j in runs.common]
    changed = [(i, one, other) for i, one, other in pairs if any(one[m] != other[m] for m in MEASURES)]
    return {
        "condition": name,
        "reworded": sum(one["completion"] != other["completion"] for _, one, other in pairs),
        "changed": len(changed),
        "only_a": sum(one["intact"] > other["intact"] for _, one, other in changed),
        "only_b": sum(other["intact"] > one["intact"] for _, one, other in changed),
        "examples": [
            (i, cut(runs.a.completions["prompts"][i], READABLE), list(zip(LETTERS, map(shown_completion, both), strict=True)))
            for i, *both in changed[:EXAMPLES]
        ],
    }
