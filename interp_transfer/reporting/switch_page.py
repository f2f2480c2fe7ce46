"""A safety switch as one HTML page that opens offline: what each way does, what it costs, and at which layers."""

from pathlib import Path

from plotly.offline import get_plotlyjs

from interp_transfer.reporting.page import HEAD, MACROS, SCRIPT, json_block, render, write_page
from interp_transfer.studies.switch import DIRECT, MAPPED, Switch

FILE = "switch.html"
EXAMPLES = 3

_PAGE = (
    MACROS
    + HEAD
    + """<header>
<p class="eyebrow">interp_transfer &middot; safety switch &middot; task {{ task }}</p>
<h1>{{ title }}</h1>
<p class="lead">{{ sentence }}</p>
</header>
<main id="main">
<section>
<h2>Every way to switch</h2>
<p>Success: {{ success }}. Intact: and the answer is a valid one. Clean KL is what changes, in nats per token, on prompts that
the behaviour is not about. Skills are shares of answers that are as they should be; no map was fitted on them.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Ways to switch"><table><caption>{{ n }} held-out prompts, and as many
of each skill at most; 95% intervals below each share</caption>
<thead><tr><th scope="col">way</th><th scope="col" class="num">success</th><th scope="col" class="num">intact</th>
<th scope="col" class="num">clean KL</th>{% for skill in skills %}<th scope="col" class="num">{{ skill }}</th>{% endfor %}
<th scope="col" class="num">parameters</th></tr></thead><tbody>
{% for name, way in ways.items() %}
<tr{% if name == mapped %} class="this"{% endif %}><th scope="row">{{ name | replace("_", " ") }}
{% if way.site %}<small>{{ way.site }}</small>{% endif %}</th>
{{ rate(way.judged.success) }}{{ rate(way.judged.intact) }}<td class="num">{{ way.judged.clean_kl | fixed(3) }}</td>
{% for skill in skills %}{{ rate(way.skills[skill]) }}{% endfor %}
<td class="num">{% if way.parameters is none %}second model{% else %}
{{ "%.2f%%" | format(100 * way.parameters / size) }}{% endif %}</td></tr>
{% endfor %}
</tbody></table></div>
</section>
<section>
<h2>Layer by layer</h2>
{{ plot("figure-layers", "Success, intact and clean KL by block", "Validation prompts. Each way above acts at the layer that "
  "leaves most answers intact here.") }}
</section>
<section>
<h2>What the model said</h2>
{% for example in examples %}
<article><h3>Prompt {{ loop.index }}</h3><pre class="prompt">{{ example.prompt }}</pre><div class="answers">
{% for name, text in example.answers %}<div><h4><span>{{ name }}</span></h4><pre dir="auto">{{ text }}</pre></div>{% endfor %}
</div></article>
{% endfor %}
</section>
</main>
<footer><p>{{ details }}. One file, no network: open it anywhere.</p></footer>
{% for script in scripts %}<script>{{ script }}</script>{% endfor %}
</body>
</html>
"""
)


def write_switch(switch: Switch, folder: Path) -> Path:
    """Write ``switch.html`` into a folder, made if it is missing.

    Returns:
        The page's path. An older page is replaced, all at once.
    """
    return write_page(page(switch), folder / FILE)


def page(switch: Switch) -> str:
    """The whole page."""
    shown = [name for name in ("unswitched", MAPPED, DIRECT, "donor") if name in switch.ways]
    examples = [
        {"prompt": prompt, "answers": [(name, switch.ways[name].judged.completions[k]) for name in shown]}
        for k, prompt in enumerate(switch.prompts[:EXAMPLES])
    ]
    context = {
        "title": f"{switch.host.name} made to behave as {switch.donor.name}",
        "task": switch.task,
        "sentence": switch.sentence(),
        "success": "what fine-tuning brought is "
        + {"to_base": "gone", "to_tuned": "there"}.get(switch.details["direction"], "as in the donor"),
        "ways": switch.ways,
        "mapped": MAPPED,
        "skills": list(next(iter(switch.ways.values())).skills),
        "size": switch.host_parameters,
        "n": len(switch.prompts),
        "figures": {"figure-layers": json_block(str(switch.plot().to_json()))},
        "examples": examples,
        "details": "Seed {seed}, maps fitted on {rows} tokens, rank {rank}".format(**switch.details),
    }
    return render(context, [get_plotlyjs(), SCRIPT], _PAGE)
