"""Two runs of one task on one HTML page that opens offline: what was asked of each, what came of it, and what changed.

The runs are called A and B, and every difference is A less B. What is compared, and how, is said in `reporting.two_runs`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from interp_transfer.plots.style import percent, styles
from interp_transfer.plots.two_runs import two_run_bars
from interp_transfer.reporting.headline import _points
from interp_transfer.reporting.page import HEAD, MACROS, SCRIPT, json_block, render, short, write_page
from interp_transfer.reporting.report import EXAMPLES, GLOSSARY, LONGEST, _answer
from interp_transfer.reporting.run_folder import ResultJson, read_run
from interp_transfer.reporting.two_runs import MEASURES, Compared, TwoRuns, compare_runs
from interp_transfer.stats import CONFIDENCE, MARGIN

LETTERS = ("A", "B")

_PAGE = (
    MACROS
    + """
{%- macro name(n) -%}
<span class="swatch" style="background:{{ looks[n].colour }}"></span>{{ n | replace("_", " ") }}{%- endmacro -%}
"""
    + HEAD
    + """<header>
<p class="eyebrow">interp_transfer &middot; two runs of task {{ task }}</p>
<h1>{{ title }}</h1>
{% for sentence in said %}<p{% if loop.first %} class="lead"{% endif %}>{{ sentence }}</p>
{% endfor %}
<ol class="route" aria-label="The two runs">
{% for run in runs %}
<li><span class="soft">{{ run.letter }}</span><b>{{ run.folder }}</b>
{% for line in run.lines %}<span class="soft">{{ line }}</span>{% endfor %}</li>
{% endfor %}
</ol>
</header>
<nav aria-label="Sections"><ul>
<li><a href="#asked">What was asked</a></li><li><a href="#conditions">Conditions</a></li>
<li><a href="#completions">Completions that changed</a></li>
</ul></nav>
<main id="main">
<section id="asked">
<h2>What differs in what was asked</h2>
{% if differing %}
<div class="scroll" tabindex="0" role="region" aria-label="What differs"><table style="table-layout: fixed">
<thead><tr><th scope="col" style="width: 28%">field</th><th scope="col">A</th><th scope="col">B</th></tr></thead><tbody>
{% for field, a, b in differing %}
<tr class="this"><th scope="row">{{ field }}</th><td class="mono">{{ a }}</td><td class="mono">{{ b }}</td></tr>
{% endfor %}
</tbody></table></div>
{% else %}
<p>Nothing: both files record the same task, models, sites, mapper, seed and versions.</p>
{% endif %}
<details><summary>What is the same in both ({{ same | length }})</summary>
<div class="scroll" tabindex="0" role="region" aria-label="What is the same"><table><tbody>
{% for field, value in same %}<tr><th scope="row">{{ field }}</th><td class="mono">{{ value }}</td></tr>{% endfor %}
</tbody></table></div></details>
</section>
<section id="conditions">
<h2>What each intervention did</h2>
<p><b>Success</b>: the intervention did what it is for. <b>Intact</b>: and the answer is a valid one. <b>Clean KL</b> is what
changes, in nats per token, on prompts that need no intervention.</p>
<noscript><p>The figure needs scripts; the tables hold the same numbers.</p></noscript>
{{ plot("figure-conditions", "Bars: success, intact and clean KL of each condition in both runs. The table below holds the
same numbers.", "For each condition the upper bar is run A, the lower one run B. Solid: intact, with its 95% interval. Pale
beyond it: success without a valid answer.") }}
<div class="scroll" tabindex="0" role="region" aria-label="Conditions of both runs"><table class="judged">
<caption>{{ counted }}; 95% intervals below each share</caption>
<thead><tr><th scope="col">condition, run</th><th scope="col" class="num">strength</th><th scope="col" class="num">success</th>
<th scope="col" class="num">intact</th><th scope="col" class="num">clean KL</th></tr></thead><tbody>
{% for n, letter, row in judged %}
<tr><th scope="row">{{ name(n) }}, {{ letter }}</th><td class="num">{{ row.strength | strength }}</td>
{{ rate(row.success) }}{{ rate(row.intact) }}<td class="num">{{ row.clean_kl | fixed(4) }}</td></tr>
{% endfor %}
</tbody></table></div>
<h3>A less B</h3>
<p>{{ how }}</p>
{% if compared %}
<div class="scroll" tabindex="0" role="region" aria-label="Differences"><table>
<caption>A less B in percentage points, n = {{ n }}; 95% intervals below, and p, adjusted for all {{ comparisons }}</caption>
<thead><tr><th scope="col">condition</th>
{% for m in measures %}<th scope="col" class="num">{{ m }}</th>{% endfor %}</tr></thead>
<tbody>
{% for condition, cells in compared %}
<tr{% if condition == "moved" %} class="this"{% endif %}><th scope="row">{{ name(condition) }}</th>
{% for c in cells %}<td class="num">{{ c.shown }}<small>{{ c.interval }}</small><small>{{ c.word }}</small>
<small>p {{ c.p }}</small></td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
<p>{{ many }}</p>
{% endif %}
</section>
<section id="completions">
<h2>Completions that changed</h2>
<p>{{ changes }}</p>
{% if examples %}
<p><span class="legend intact">&#10003; intact</span><span class="legend success">&#9680; success, but not a valid answer</span>
<span class="legend failed">&#10007; no success</span></p>
{% endif %}
{% for example in examples %}
<article><h3>{{ example.title }}</h3><pre class="prompt" dir="auto">{{ example.prompt }}</pre><div class="answers">
{% for letter, a in example.answers %}
<div><h4><span>{{ letter }}</span><span class="badge {{ a.kind }}">{{ a.badge }}</span></h4>
<pre dir="auto">{{ a.text }}</pre>{% if a.reason %}<p class="soft">{{ a.reason }}</p>{% endif %}</div>
{% endfor %}
</div></article>
{% endfor %}
</section>
</main>
<footer><p>Made from the result.json and completions.json of both folders. One file, no network: open it anywhere.</p></footer>
{% for script in scripts %}<script>{{ script }}</script>{% endfor %}
</body>
</html>
"""
)


def write_two_runs(folder: str | Path, against: str | Path, out: str | Path | None = None) -> Path:
    """Write a page on two runs of one task.

    Args:
        folder: of the first run, A.
        against: of the second, B.
        out: the page; ``against-NAME.html`` in the first folder if not given.

    Returns:
        The page's path. An older page is replaced, all at once.

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
    """What two folders are called on a page: their last names, and those of the folders above as far as they need them."""
    first, second = one.resolve().parts, other.resolve().parts
    for last in range(1, max(len(first), len(second))):
        if first[-last:] != second[-last:]:
            return str(Path(*first[-last:])), str(Path(*second[-last:]))
    return str(one), str(other)


def page(runs: TwoRuns, folders: tuple[str, str]) -> str:
    """The whole page.

    Args:
        runs: what is shown.
        folders: what A and B are called.
    """
    a, b = runs.a.result, runs.b.result
    rows = asked(a, b)
    every = list(dict.fromkeys([*a["conditions"], *b["conditions"]]))
    judged = [(name, letter, c) for name in every for letter, c in _both(runs, name)]
    changes, examples = _changed(runs)
    context = {
        "title": verdict(runs),
        "task": a["task"],
        "said": list(_sentences(runs)),
        "runs": [
            {"letter": letter, "folder": folder, "lines": list(_lines(result))}
            for letter, folder, result in zip(LETTERS, folders, (a, b), strict=True)
        ],
        "differing": [tuple(map(_cut, row)) for row in rows if row[1] != row[2]],
        "same": [tuple(map(_cut, row[:2])) for row in rows if row[1] == row[2]],
        "looks": styles(every),
        "judged": judged,
        "counted": "; ".join(_counts(letter, r) for letter, r in zip(LETTERS, (a, b), strict=True)),
        "figures": {"figure-conditions": json_block(str(two_run_bars(judged).to_json()))},
        "how": _how(runs),
        "n": len(runs.common) if runs.paired else " and ".join(str(len(r.completions["prompts"])) for r in (runs.a, runs.b)),
        "measures": MEASURES,
        "comparisons": len(runs.compared),
        "compared": _by_condition(runs),
        "many": _many(runs),
        "changes": changes,
        "examples": examples,
    }
    return render(context, [get_plotlyjs(), SCRIPT], _PAGE)


def verdict(runs: TwoRuns) -> str:
    """What became of the moved vector's intact answers, in a sentence that does not flatter."""
    found = _moved(runs)
    if found is None:
        return "Two runs side by side"
    d = found.difference
    if found.adjusted < 1 - CONFIDENCE:
        more = "more" if d.difference > 0 else "fewer"
        small = f", by less than {100 * d.margin:g} points" if d.equivalent else ""
        return f"The moved vector leaves {more} intact answers in run A than in run B{small}."
    if d.equivalent:
        return f"The moved vector leaves as many intact answers in run A as in run B, to within {100 * d.margin:g} points."
    return "No difference of the moved vector between run A and run B is shown, nor that there is none."


def _moved(runs: TwoRuns) -> Compared | None:
    return next((c for c in runs.compared if (c.condition, c.measure) == ("moved", "intact")), None)


def _sentences(runs: TwoRuns) -> Iterator[str]:
    found = _moved(runs)
    if found is not None:
        d = found.difference
        on = f"on the same {d.n} prompts" if runs.paired else "as of independent prompts"
        shares = [run.result["conditions"]["moved"]["intact"] for run in (runs.a, runs.b)]
        shown = [f"{percent(s['rate'])} ({percent(s['low'])} to {percent(s['high'])}, n = {s['n']})" for s in shares]
        yield (
            f"Intact answers with the moved vector: A {shown[0]}, B {shown[1]}. A less B {on}: {_points(d.difference)} "
            f"points ({_points(d.low)} to {_points(d.high)}), p {_p(found.adjusted)}, adjusted for {len(runs.compared)} "
            "comparisons."
        )
        costs = [short(run.result["conditions"]["moved"]["clean_kl"]) for run in (runs.a, runs.b)]
        yield f"Its cost on clean prompts, in nats per token: A {costs[0]}, B {costs[1]}."


def _lines(result: ResultJson) -> Iterator[str]:
    source, mapper, vector = result.get("source"), result.get("mapper"), result.get("vector")
    target = result["target"]["name"]
    yield f"{source['name']} to {target}" if source else target
    if mapper:
        yield f"{mapper['kind']}, {mapper['mode']}; variance left unexplained {percent(mapper['fvu'])}"
    if vector:
        yield f"moved vector: norm {short(vector['moved_norm'])}, cosine to native {short(vector['cosine_to_native'])}"


def asked(a: ResultJson, b: ResultJson) -> list[tuple[str, str, str]]:
    """What was asked for in both, by field; the models, sites and settings that came of it in place of defaults."""
    kinds = [result.get("mapper", {}).get("kind") for result in (a, b)]
    one, other = (_asked(result, apart=kinds[0] == kinds[1]) for result in (a, b))
    return [(f.replace("_", " "), one.get(f, "\u2013"), other.get(f, "\u2013")) for f in dict.fromkeys([*one, *other])]


def _asked(result: Mapping[str, Any], *, apart: bool) -> dict[str, str]:
    """A field for each setting, as text. What a run resolved replaces what was left to it.

    Args:
        result: what `result.json` holds.
        apart: a field for each setting of the mapper; else one for all, since mappers of two kinds have other settings.
    """
    found: dict[str, Any] = {"task": result["task"], "direction": result.get("direction")}
    for role in ("source", "target"):
        found |= {role if key == "name" else f"{role}_{key}": value for key, value in result.get(role, {}).items()}
    mapper, rule = result.get("mapper", {}), result.get("strength_rule", {})
    found |= {name: mapper.get(key) for name, key in (("mapper", "kind"), ("mode", "mode"), ("norm", "norm"))}
    found |= {key: value for key, value in (result.get("asked") or {}).items() if found.get(key) is None}
    given = found.pop("settings", {})  # the mapper has these and those that were left to it
    settings = mapper.get("settings", given)
    found |= {
        "budget": rule.get("budget_nats_per_token", found.get("budget")),
        "strengths": rule.get("strengths", found.get("strengths")),
    }
    found |= (
        {f"mapper\u2019s {key}": value for key, value in settings.items()} if apart else {"mapper\u2019s settings": settings}
    )
    found |= {"seed": result["seed"], "strength rule": rule.get("rule")}
    found |= {f"version of {package}": number for package, number in result["versions"].items()}
    return {key: _text(value) for key, value in found.items() if value not in (None, {})}


def _text(value: Any) -> str:
    if isinstance(value, list):
        text = ", ".join(map(_text, value))
    elif isinstance(value, dict):
        text = ", ".join(f"{key} {_text(v)}" for key, v in value.items())
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    else:
        text = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
    return text


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} \u2026"


def _both(runs: TwoRuns, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for letter, run in zip(LETTERS, (runs.a, runs.b), strict=True):
        if name in run.result["conditions"]:
            yield letter, run.result["conditions"][name]


def _counts(letter: str, result: ResultJson) -> str:
    counts = {name.replace("_", " "): c["intact"]["n"] for name, c in result["conditions"].items()}
    usual = max(counts.values(), key=list(counts.values()).count)
    others = [f"{name} n = {n}" for name, n in counts.items() if n != usual]
    return f"{letter}: n = {usual}{' (' + ', '.join(others) + ')' if others else ''}"


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
        cell = {"shown": _points(d.difference), "interval": f"{_points(d.low)} to {_points(d.high)}"}
        rows.setdefault(c.condition, []).append({**cell, "word": words[d.equivalent], "p": _p(c.adjusted)})
    return list(rows.items())


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}" if value < 0.0995 else f"= {value:.2f}"


def _many(runs: TwoRuns) -> str:
    shown = [f"{c.condition.replace('_', ' ')}, {c.measure}" for c in runs.compared if c.adjusted < 1 - CONFIDENCE]
    return (
        f"{len(runs.compared)} comparisons are shown, and of 95% intervals one in 20 misses 0 though nothing differs. By "
        f"Holm\u2019s adjustment a difference is shown for {'; '.join(shown) or 'none of them'}. Intervals and equivalence are "
        "each row\u2019s own."
    )


def _changed(runs: TwoRuns) -> tuple[str, list[dict[str, Any]]]:
    """How many outcomes of the moved vector changed, in words, and the first of them."""
    said = [run.completions["conditions"] for run in (runs.a, runs.b)]
    shared = [name for name in said[0] if name in said[1]]
    if not shared or not runs.common:
        return f"No {'prompt' if shared else 'condition'} is in both runs.", []
    name = "moved" if "moved" in shared else next((n for n in shared if n not in GLOSSARY), shared[0])
    pairs = [(i, said[0][name][i], said[1][name][j]) for i, j in runs.common]
    changed = [(i, a, b) for i, a, b in pairs if any(a[m] != b[m] for m in MEASURES)]
    reworded = sum(a["completion"] != b["completion"] for _, a, b in pairs)
    better = sum(a["intact"] > b["intact"] for _, a, b in changed), sum(b["intact"] > a["intact"] for _, a, b in changed)
    what = (
        f"Condition {name.replace('_', ' ')}: of {len(pairs)} prompts in both runs, {reworded} got other words, and "
        f"{len(changed)} another outcome. {better[0]} are intact in A alone, {better[1]} in B alone."
    )
    examples = [
        {
            "title": f"Prompt {i + 1} of A",
            "prompt": runs.a.completions["prompts"][i].replace("\n", "\u21b5\n"),
            "answers": [(letter, _answer(name, c)) for letter, c in zip(LETTERS, (a, b), strict=True)],
        }
        for i, a, b in changed[:EXAMPLES]
    ]
    return f"{what} {_first(len(examples), len(changed))}" if examples else what, examples


def _first(shown: int, there: int) -> str:
    return "All with another outcome are below." if shown == there else f"The first {shown} with another outcome are below."
