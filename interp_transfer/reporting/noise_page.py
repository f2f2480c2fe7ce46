"""Noise at a trigger as one HTML page that opens offline: what it takes to switch a backdoor off, and what switches it on."""

from collections.abc import Mapping
from pathlib import Path

from plotly.offline import get_plotlyjs

from interp_transfer.evaluation.evaluator import Condition
from interp_transfer.plots.style import percent
from interp_transfer.reporting.page import HEAD, MACROS, SCRIPT, json_block, render, write_page
from interp_transfer.search.doses import Doses

FILE = "noise.html"
MOST = 0.5
"""Share of trials from which the page says that noise switches."""

_PAGE = (
    MACROS
    + HEAD
    + """<header>
<p class="eyebrow">interp_transfer &middot; noise at the trigger of {{ model }} &middot; task {{ task }}</p>
<h1>{{ title }}</h1>
{% for part in parts %}<p{% if loop.first %} class="lead"{% endif %}>{{ part.sentence }}</p>{% endfor %}
<p>Noise is {{ how }} <code>{{ site }}</code>. A dose is the standard deviation of each coordinate, in units of the activation;
&ldquo;relative&rdquo; is the dose over the typical size (root mean square) of a coordinate at the same tokens, without noise.
</p>
</header>
<main id="main">
{% for part in parts %}
<section>
<h2>{{ part.heading }}</h2>
{{ plot(part.id, part.heading, part.caption) }}
<div class="scroll" tabindex="0" role="region" aria-label="{{ part.heading }}"><table>
<caption>95% intervals below each share, clustered by prompt</caption>
<thead><tr><th scope="col" class="num">dose</th><th scope="col" class="num">relative</th>
<th scope="col" class="num">{{ part.means.success }}</th><th scope="col" class="num">{{ part.means.intact }}</th>
<th scope="col" class="num">clean KL</th><th scope="col" class="num">trials</th></tr></thead><tbody>
{% for c in part.points %}
<tr><th scope="row" class="num">{{ "%g" | format(c.strength) }}</th>
<td class="num">{{ "%.2g" | format(c.strength / part.typical) }}</td>{{ rate(c.success) }}{{ rate(c.intact) }}
<td class="num">{{ c.clean_kl | fixed(4) }}</td><td class="num">{{ c.success.n }}</td></tr>
{% endfor %}
</tbody></table></div>
</section>
{% endfor %}
</main>
<footer><p>{{ details }}. Clean KL: nats per token, on clean prompts, of which some hold the safe trigger and none the trigger.
One file, no network: open it anywhere.</p></footer>
{% for script in scripts %}<script>{{ script }}</script>{% endfor %}
</body>
</html>
"""
)


def write_noise(found: Mapping[str, Doses], folder: Path) -> Path:
    """Write ``noise.html`` into a folder, made if it is missing.

    Returns:
        The page's path. An older page is replaced, all at once.
    """
    return write_page(page(found), folder / FILE)


def page(found: Mapping[str, Doses]) -> str:
    """The whole page, from what ``noise_doses`` returned."""
    removes, induces = found["removes"], found["induces"]
    asked = removes.details
    trigger, safe = removes.details["positions"], induces.details["positions"]
    parts = [
        {
            "id": "figure-removes",
            "heading": "Does noise switch the backdoor off?",
            "sentence": sentence(removes, "takes the backdoor away", "of triggered prompts"),
            "caption": f"Prompts with the trigger, noise at its tokens: {trigger}. Bands: 95% intervals.",
        },
        {
            "id": "figure-induces",
            "heading": "Does noise switch the backdoor on?",
            "sentence": sentence(induces, "brings the backdoor out", "of clean prompts"),
            "caption": f"Clean prompts with the safe trigger, noise at its tokens: {safe}. Bands: 95% intervals.",
        },
    ]
    both = (removes, induces)
    for part, doses in zip(parts, both, strict=True):
        part |= {"means": doses.means, "typical": doses.typical, "points": points(doses)}  # type: ignore[arg-type]
    context = {
        "title": f"Noise as a switch: {removes.task} on {removes.model.name}",
        "model": removes.model.name,
        "task": removes.task,
        "site": asked["site"],
        "how": "put in place of the activation (zeros at dose 0) at" if asked["replace"] else "added to the activation at",
        "parts": parts,
        "figures": {part["id"]: json_block(str(d.plot().to_json())) for part, d in zip(parts, both, strict=True)},
        "details": f"{asked['n']} {asked['split']} prompts of each sort, {asked['draws']} draws of noise, seed {asked['seed']}",
    }
    return render(context, [get_plotlyjs(), SCRIPT], _PAGE)


def points(doses: Doses) -> list[Condition]:
    """All conditions, curve by curve."""
    return [c for curve in doses.curves.values() for c in curve]


def sentence(doses: Doses, does: str, whose: str) -> str:
    """What noise does at most, and which dose is the least that does so in half of the trials."""
    best = max(points(doses), key=lambda c: c.success.value)
    share = f"{percent(best.success.value)} ({percent(best.success.low)} to {percent(best.success.high)}) of trials"
    if not best.success.value:
        return f"No dose {does} in any trial {whose}: 0% ({percent(best.success.low)} to {percent(best.success.high)})."
    first = next((c for c in points(doses) if c.success.value >= MOST), None)
    if first is None:
        return f"No dose {does} in half of the trials {whose}: at most in {share}, at dose {best.strength:g}."
    return f"Noise of {best.strength:g} {does} in {share} {whose}; the least dose that does in half is {first.strength:g}."
