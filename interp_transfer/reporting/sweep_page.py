"""A sweep as one HTML page that opens offline: where to steer, how hard, what that costs, and everything that was tried."""

from pathlib import Path

from plotly.offline import get_plotlyjs

from interp_transfer.reporting.page import HEAD, MACROS, SCRIPT, json_block, render, write_page
from interp_transfer.search.sweep import RULES, Sweep, Tried

FILE = "sweep.html"

_PAGE = (
    MACROS
    + """
{%- macro settings(rows, caption) -%}
<div class="scroll" tabindex="0" role="region" aria-label="{{ caption }}"><table><caption>{{ caption }}</caption>
<thead><tr><th scope="col">site</th><th scope="col">positions</th><th scope="col" class="num">strength</th>
<th scope="col" class="num">norm</th><th scope="col" class="num">success</th><th scope="col" class="num">intact</th>
<th scope="col" class="num">clean KL</th><th scope="col" class="num">n</th></tr></thead><tbody>
{% for t in rows %}
<tr{% if t == chosen %} class="this"{% endif %}><th scope="row"><code>{{ t.site }}</code></th><td>{{ t.positions }}</td>
<td class="num">{{ "%g" | format(t.strength) }}</td><td class="num">{{ t.norm | fixed(2) }}</td>{{ rate(t.success) }}
{{ rate(t.intact) }}<td class="num">{% if t.clean_kl is none %}not measured{% else %}{{ t.clean_kl | fixed(4) }}{% endif %}</td>
<td class="num">{{ t.intact.n }}{% if not t.whole %}<small>given up early</small>{% endif %}</td></tr>
{% endfor %}
</tbody></table></div>
{%- endmacro -%}
"""
    + HEAD
    + """<header>
<p class="eyebrow">interp_transfer &middot; where to steer {{ model }} &middot; task {{ task }}</p>
<h1>{{ title }}</h1>
{% for name, sentence, words in recommendations %}
<p{% if loop.first %} class="lead"{% endif %}>{{ sentence }} <small>Rule &ldquo;{{ name }}&rdquo;: {{ words }}.</small></p>
{% endfor %}
</header>
<main id="main">
<section>
<h2>Where</h2>
{{ plot("figure-map", "Sites by positions", "Each cell shows the strength that leaves most answers intact within the clean-KL "
  "budget. Sites from the input of the model (below) to its end.") }}
</section>
<section>
<h2>How hard, and at what cost</h2>
{{ plot("figure-cost", "Intact answers over clean KL", "A mark for each setting. Up and to the left is better: more answers "
  "right, less change of what was right already.") }}
{{ settings(front, "Settings from which no other is better in both intact answers and clean KL") }}
</section>
<section>
<h2>Everything that was tried</h2>
<details><summary>{{ tried | length }} settings</summary>
{{ settings(tried, "All settings") }}
</details>
</section>
</main>
<footer><p>{{ details }}. One file, no network: open it anywhere.</p></footer>
{% for script in scripts %}<script>{{ script }}</script>{% endfor %}
</body>
</html>
"""
)


def write_sweep(sweep: Sweep, folder: Path) -> Path:
    """Write ``sweep.html`` into a folder, made if it is missing.

    Returns:
        The page's path. An older page is replaced, all at once.
    """
    return write_page(page(sweep), folder / FILE)


def page(sweep: Sweep) -> str:
    """The whole page."""
    whole = all(t.whole for t in sweep.tried)
    rules = RULES if whole else {"pareto": RULES["pareto"]}
    chosen: Tried | None = sweep.recommended()
    figures = {"figure-map": sweep.plot(), "figure-cost": sweep.plot_cost()}
    asked = sweep.details
    context = {
        "title": f"Where and how hard to steer: {sweep.task} on {sweep.model.name}",
        "model": sweep.model.name,
        "task": sweep.task,
        "recommendations": [(name, sweep.recommendation(name), words) for name, words in rules.items()],
        "figures": {name: json_block(str(figure.to_json())) for name, figure in figures.items()},
        "front": sweep.front(),
        "tried": sweep.tried,
        "chosen": chosen,
        "details": f"{asked['n']} {asked['split']} prompts, seed {asked['seed']}, budget {sweep.budget:g} nats per token",
    }
    return render(context, [get_plotlyjs(), SCRIPT], _PAGE)
