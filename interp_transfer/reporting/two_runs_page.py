"""Two runs of one task on one HTML page that opens offline: their options, their outcomes, and the completions that changed.

The runs are called A and B, and every difference is A less B. `reporting.two_runs` explains how they are compared.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from interp_transfer.plots.conditions import run_bars
from interp_transfer.plots.style import percent, styles
from interp_transfer.reporting.completions import EXAMPLES, LONGEST, shown_completion
from interp_transfer.reporting.formats import interval, number_of_answers, points, short, with_interval
from interp_transfer.reporting.render import render, write_page
from interp_transfer.reporting.report import GLOSSARY
from interp_transfer.reporting.run_folder import ResultJson, read_run
from interp_transfer.reporting.two_runs import MEASURES, Compared, TwoRuns, compare_runs
from interp_transfer.stats import CONFIDENCE, MARGIN

LETTERS = ("A", "B")


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
    """The shortest ends of two paths that differ."""
    first, second = one.resolve().parts, other.resolve().parts
    for last in range(1, max(len(first), len(second))):
        if first[-last:] != second[-last:]:
            return str(Path(*first[-last:])), str(Path(*second[-last:]))
    return str(one), str(other)


def page(runs: TwoRuns, folders: tuple[str, str]) -> str:
    """The whole page.

    Args:
        runs: the two runs.
        folders: the names of A and B.
    """
    results = (runs.a.result, runs.b.result)
    rows = settings(*results)
    every = list(dict.fromkeys(name for result in results for name in result["conditions"]))
    judged = [
        (name, letter, result["conditions"][name])
        for name in every
        for letter, result in zip(LETTERS, results, strict=True)
        if name in result["conditions"]
    ]
    changes, examples = _changed(runs)
    return render(
        "two_runs.html.j2",
        figures={"figure-conditions": run_bars(judged)},
        title=verdict(runs),
        task=results[0]["task"],
        sentences=list(_sentences(runs)),
        runs=[
            {"letter": letter, "folder": folder, "lines": list(_lines(result))}
            for letter, folder, result in zip(LETTERS, folders, results, strict=True)
        ],
        differing=[tuple(map(_cut, row)) for row in rows if row[1] != row[2]],
        same=[tuple(map(_cut, row[:2])) for row in rows if row[1] == row[2]],
        looks=styles(every),
        judged=judged,
        counted="; ".join(f"{x}: {number_of_answers(r['conditions'])}" for x, r in zip(LETTERS, results, strict=True)),
        how=_how(runs),
        n=len(runs.common) if runs.paired else " and ".join(str(len(r.completions["prompts"])) for r in (runs.a, runs.b)),
        measures=list(MEASURES),
        comparisons=len(runs.compared),
        compared=_by_condition(runs),
        adjusted=_adjusted(runs),
        changes=changes,
        examples=examples,
    )


def verdict(runs: TwoRuns) -> str:
    """The difference of the moved vector's intact answers in a sentence that does not flatter."""
    moved = _moved(runs)
    if moved is None:
        return "Two runs side by side"
    d = moved.difference
    if moved.adjusted < 1 - CONFIDENCE:
        more = "more" if d.difference > 0 else "fewer"
        small = f", by less than {100 * d.margin:g} points" if d.equivalent else ""
        return f"The moved vector leaves {more} intact answers in run A than in run B{small}."
    if d.equivalent:
        return f"The moved vector leaves as many intact answers in run A as in run B, to within {100 * d.margin:g} points."
    return "No difference of the moved vector between run A and run B is shown, nor that there is none."


def _moved(runs: TwoRuns) -> Compared | None:
    return next((c for c in runs.compared if (c.condition, c.measure) == ("moved", "intact")), None)


def _sentences(runs: TwoRuns) -> Iterator[str]:
    compared = _moved(runs)
    if compared is None:
        return
    d = compared.difference
    on = f"on the same {d.n} prompts" if runs.paired else "as of independent prompts"
    moved = [run.result["conditions"]["moved"] for run in (runs.a, runs.b)]
    shares = [f"{x} {with_interval(c['intact'])}, n = {c['intact']['n']}" for x, c in zip(LETTERS, moved, strict=True)]
    yield (
        f"Intact answers with the moved vector: {'; '.join(shares)}. A less B {on}: {points(d.difference)} points "
        f"({interval(d.to_dict(), points)}), p {_p(compared.adjusted)}, adjusted for {len(runs.compared)} comparisons."
    )
    costs = [f"{letter} {short(c['clean_kl'])}" for letter, c in zip(LETTERS, moved, strict=True)]
    yield f"Its cost on clean prompts, in nats per token: {', '.join(costs)}."


def _lines(result: ResultJson) -> Iterator[str]:
    source, mapper, vector = result.get("source"), result.get("mapper"), result.get("vector")
    target = result["target"]["name"]
    yield f"{source['name']} to {target}" if source else target
    if mapper:
        yield f"{mapper['kind']}, {mapper['mode']}; variance left unexplained {percent(mapper['fvu'])}"
    if vector:
        yield f"moved vector: norm {short(vector['moved_norm'])}, cosine to native {short(vector['cosine_to_native'])}"


def settings(a: ResultJson, b: ResultJson) -> list[tuple[str, str, str]]:
    """The settings of both runs by field, with the models, sites and strengths that defaults were resolved to."""
    kinds = [result.get("mapper", {}).get("kind") for result in (a, b)]
    one, other = (_settings(result, apart=kinds[0] == kinds[1]) for result in (a, b))
    return [(f.replace("_", " "), one.get(f, "\u2013"), other.get(f, "\u2013")) for f in dict.fromkeys([*one, *other])]


def _settings(result: Mapping[str, Any], *, apart: bool) -> dict[str, str]:
    """A field for each setting, as text. What a run resolved replaces an option that was left open.

    Args:
        result: the content of `result.json`.
        apart: a field for each setting of the mapper; else one for all, since mappers of two kinds have different settings.
    """
    fields: dict[str, Any] = {"task": result["task"], "direction": result.get("direction")}
    for role in ("source", "target"):
        fields |= {role if key == "name" else f"{role}_{key}": value for key, value in result.get(role, {}).items()}
    mapper, rule = result.get("mapper", {}), result.get("strength_rule", {})
    fields |= {name: mapper.get(key) for name, key in (("mapper", "kind"), ("mode", "mode"), ("norm", "norm"))}
    fields |= {key: value for key, value in (result.get("asked") or {}).items() if fields.get(key) is None}
    options = fields.pop("settings", {})
    of_mapper = mapper.get("settings", options)  # with the defaults, which the options lack
    fields |= {
        "budget": rule.get("budget_nats_per_token", fields.get("budget")),
        "strengths": rule.get("strengths", fields.get("strengths")),
    }
    fields |= (
        {f"mapper\u2019s {key}": value for key, value in of_mapper.items()} if apart else {"mapper\u2019s settings": of_mapper}
    )
    fields |= {"seed": result["seed"], "strength rule": rule.get("rule")}
    fields |= {f"version of {package}": number for package, number in result["versions"].items()}
    return {key: _text(value) for key, value in fields.items() if value not in (None, {})}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(v)}" for key, v in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} \u2026"


def _how(runs: TwoRuns) -> str:
    sizes = [len(run.completions["prompts"]) for run in (runs.a, runs.b)]
    has, both = f"(A has {sizes[0]}, B {sizes[1]})", len(runs.common)
    if runs.paired and sizes == [both, both]:
        how = "Both runs judged the same prompts, so outcomes are compared prompt by prompt."
    elif runs.paired:
        how = f"{both} prompts are in both runs {has}: on these, outcomes are compared prompt by prompt."
    else:
        how = (
            f"{f'Only {both} prompts are' if both else 'No prompt is'} in both runs {has}, so shares are compared as of "
            "independent prompts. It takes a larger difference to be shown, and part of it may come from the prompts."
        )
    words = (
        f"Equivalent: shown to be within {100 * MARGIN:g} points (the 90% interval is); not equivalent: shown to be beyond; "
        "not decided: this n does not tell."
    )
    pooled = any(
        c["success"]["n"] != n
        for n, run in zip(sizes, (runs.a, runs.b), strict=True)
        for c in run.result["conditions"].values()
    )
    return f"{how} {words}{' Of several random draws the first is compared.' if pooled else ''}"


def _by_condition(runs: TwoRuns) -> list[tuple[str, list[dict[str, str]]]]:
    rows: dict[str, list[dict[str, str]]] = {}
    words = {True: "equivalent", False: "not equivalent", None: "not decided"}
    for c in runs.compared:
        d = c.difference
        cell = {"shown": points(d.difference), "interval": interval(d.to_dict(), points)}
        rows.setdefault(c.condition, []).append({**cell, "word": words[d.equivalent], "p": _p(c.adjusted)})
    return list(rows.items())


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}" if value < 0.0995 else f"= {value:.2f}"


def _adjusted(runs: TwoRuns) -> str:
    shown = [f"{c.condition.replace('_', ' ')}, {c.measure}" for c in runs.compared if c.adjusted < 1 - CONFIDENCE]
    return (
        f"{len(runs.compared)} comparisons are shown, and of 95% intervals one in 20 misses 0 though nothing differs. By "
        f"Holm\u2019s adjustment a difference is shown for {'; '.join(shown) or 'none of them'}. Intervals and equivalence are "
        "each row\u2019s own."
    )


def _changed(runs: TwoRuns) -> tuple[str, list[dict[str, Any]]]:
    """How many outcomes of the moved vector changed, in words, and the first examples."""
    a, b = (run.completions["conditions"] for run in (runs.a, runs.b))
    shared = [name for name in a if name in b]
    if not shared or not runs.common:
        return f"No {'prompt' if shared else 'condition'} is in both runs.", []
    name = "moved" if "moved" in shared else next((n for n in shared if n not in GLOSSARY), shared[0])
    pairs = [(i, a[name][i], b[name][j]) for i, j in runs.common]
    changed = [(i, one, other) for i, one, other in pairs if any(one[m] != other[m] for m in MEASURES)]
    reworded = sum(one["completion"] != other["completion"] for _, one, other in pairs)
    in_a = sum(one["intact"] > other["intact"] for _, one, other in changed)
    in_b = sum(other["intact"] > one["intact"] for _, one, other in changed)
    what = (
        f"Condition {name.replace('_', ' ')}: of {len(pairs)} prompts in both runs, {reworded} got other words, and "
        f"{len(changed)} another outcome. {in_a} are intact in A alone, {in_b} in B alone."
    )
    examples = [
        {
            "title": f"Prompt {i + 1} of A",
            "prompt": runs.a.completions["prompts"][i],
            "answers": list(zip(LETTERS, map(shown_completion, both), strict=True)),
        }
        for i, *both in changed[:EXAMPLES]
    ]
    if not examples:
        return what, []
    which = "All" if len(examples) == len(changed) else f"The first {len(examples)}"
    return f"{what} {which} with another outcome are below.", examples
