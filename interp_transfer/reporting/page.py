"""The page itself: template, style sheet, the script that draws the figures, and what makes foreign text harmless.

The page is one file that never fetches anything: a content security policy in its head forbids it, and lets run only the two
scripts whose hashes it names, so that nothing a model wrote can. Every value is made visible (`visible`) and escaped.
"""

import base64
import hashlib
import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

_JOINERS = "\u200c\u200d"  # they hold emoji and some scripts together


def visible(text: str) -> str:
    """Text in which nothing is hidden and nothing reorders its surroundings.

    Control characters become control pictures; characters that turn the direction of writing, have no width or break lines
    become their code points in brackets. Line breaks and tabs stay.
    """
    if text.isprintable() and text.isascii():
        return text
    return "".join(map(_visible, text))


def _visible(char: str) -> str:
    category = unicodedata.category(char)
    if char in "\n\t" or char in _JOINERS or category not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return char
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"\u27e8U+{code:04X}\u27e9"


def write_page(text: str, out: Path) -> Path:
    """Write a page into its folder, made if it is missing. An older page is replaced, all at once.

    Raises:
        ValueError: when it cannot be written.
    """
    half = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        half.write_text(text, encoding="utf-8")
        os.replace(half, out)  # noqa: PTH105
    except OSError as error:
        half.unlink(missing_ok=True)
        raise ValueError(f"cannot write {out} ({error.strerror}): make the folder writable or copy it elsewhere") from error
    return out


def render(context: Mapping[str, Any], scripts: list[str], page: str | None = None) -> str:
    """A page with its values filled in.

    Args:
        context: what the template names.
        scripts: run at the end of the page, in order; the only ones that may.
        page: another template than that of a run, with ``policy``, ``css`` and ``scripts`` where a run's has them.
    """
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    policy = "; ".join(
        [
            "default-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "img-src data: blob:",
            "style-src 'unsafe-inline'",
            "script-src " + (" ".join(f"'sha256-{h}'" for h in hashes) or "'none'"),
        ]
    )
    template = _TEMPLATE if page is None else _ENVIRONMENT.from_string(page)
    return template.render(context, policy=policy, css=Markup(CSS), scripts=[Markup(s) for s in scripts])


def json_block(text: str) -> Markup:
    """JSON that may stand in a script element: it cannot end the element."""
    return Markup(text.replace("<", "\\u003c"))


def _finalize(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


CSS = """
:root { color-scheme: light dark; --paper: #faf9f6; --card: #fff; --ink: #1c2127; --soft: #59616b; --rule: #dddfe2;
  --link: #1f66a3; --mark: #fde2cd; --mark-line: #c2500f; --good: #17694a; --half: #8a5a00; --bad: #b3261e;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
@media (prefers-color-scheme: dark) { :root { --paper: #14161a; --card: #1c1f25; --ink: #e5e8eb; --soft: #a5adb7;
  --rule: #353b44; --link: #7db8ea; --mark: #4d2d16; --mark-line: #f0975c; --good: #6fd0a5; --half: #e5b454;
  --bad: #ff9c92; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 var(--sans); }
body > * { max-width: 1080px; margin-inline: auto; padding-inline: 24px; }
a { color: var(--link); text-underline-offset: .15em; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -999px; } .skip:focus { left: 8px; top: 8px; background: var(--card); padding: 8px; }
header { padding-top: 44px; }
.eyebrow { margin: 0; color: var(--soft); font-size: .875rem; }
h1 { font-size: clamp(1.5rem, 1.05rem + 1.9vw, 2.25rem); line-height: 1.2; letter-spacing: -.015em; margin: .45em 0 .5em;
  max-width: 27em; text-wrap: balance; overflow-wrap: break-word; }
h1 span { display: inline-block; max-width: 100%; } /* names with hyphens stay on one line */
h2 { font-size: 1.4rem; line-height: 1.3; letter-spacing: -.01em; margin: 0 0 .5em; }
h3 { font-size: 1rem; margin: 1.6em 0 .5em; }
p, dl { max-width: 48em; } .lead { font-size: 1.0625rem; }
.soft, small, figcaption, caption { color: var(--soft); } small, figcaption, caption { font-size: .8125rem; }
code, pre, .mono { font-family: var(--mono); font-size: .84375rem; overflow-wrap: anywhere; }
.route { display: flex; flex-wrap: wrap; gap: 10px 14px; list-style: none; margin: 26px 0 6px; padding: 0; }
.route li { flex: 1 1 200px; background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  padding: 12px 16px; min-width: 0; }
.route b, .route code, .route span { display: block; overflow-wrap: anywhere; } .route span { font-size: .875rem; }
nav { padding-block: 14px; } nav ul { display: flex; flex-wrap: wrap; gap: 4px 20px; list-style: none; padding: 12px 0;
  margin: 0; border-block: 1px solid var(--rule); font-size: .9375rem; }
section { padding-block: 26px; }
figure { margin: 18px 0; background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 16px; }
figcaption { margin-top: 8px; max-width: 60em; }
.plot { width: 100%; overflow: hidden; }
.scroll { overflow-x: auto; border: 1px solid var(--rule); border-radius: 8px; background: var(--card); margin: 18px 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9375rem; }
caption { text-align: left; padding: 12px 16px 4px; }
th, td { text-align: left; vertical-align: top; padding: 9px 16px; border-top: 1px solid var(--rule); }
thead th { border-top: 0; font-size: .8125rem; color: var(--soft); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 600; } .num { text-align: right; white-space: nowrap; }
td small, th small { display: block; font-weight: 400; line-height: 1.4; } th small { max-width: 30em; }
tr.this { background: color-mix(in srgb, var(--mark) 40%, transparent); }
.swatch { display: inline-block; width: .75em; height: .75em; border-radius: 2px; margin-right: .5em; }
dt { font-weight: 600; } .pairs { display: grid; grid-template-columns: 7em 1fr; }
dd { margin: 0 0 .7em; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 14px; }
.cards > div { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 14px 18px; min-width: 0; }
.cards h3 { margin-top: 0; } .cards dl { margin: 0; font-size: .9375rem; } .cards dt { font-size: .8125rem; font-weight: 400;
  color: var(--soft); } .cards dd { margin-bottom: .5em; }
details { margin: 12px 0; } summary { cursor: pointer; color: var(--link); }
pre { white-space: pre-wrap; margin: 0; overflow: hidden; }
pre.command { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 14px 18px; }
article { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; margin: 14px 0; padding: 14px 18px 6px;
  break-inside: avoid; }
article h3 { margin: 0 0 6px; font-size: .8125rem; font-weight: 600; color: var(--soft); }
.prompt { line-height: 1.9; overflow: hidden; }
.prompt mark, .prompt span, .legend mark, .legend span { border-radius: 3px; padding: 1px 0; margin-right: 1px;
  unicode-bidi: isolate; border-bottom: 2px solid transparent; }
mark { background: var(--mark); color: inherit; border-bottom-color: var(--mark-line) !important;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.legend { display: inline-block; margin-right: 1.4em; font-size: .875rem; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(200px, 100%), 1fr)); gap: 0 22px;
  margin-top: 10px; }
.answers > div { border-top: 1px solid var(--rule); padding: 9px 0 12px; min-width: 0; overflow: hidden; }
.answers h4 { margin: 0; font-size: .8125rem; display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 10px; }
.answers pre { unicode-bidi: plaintext; margin: 6px 0; line-height: 1.5; } .answers p { margin: 0; font-size: .8125rem;
  line-height: 1.4; overflow-wrap: anywhere; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)); gap: 14px; margin: 18px 0; }
.sides article { margin: 0; padding: 12px 16px 4px; } .sides h3 { font-size: .9375rem; color: inherit; }
.sides h3 small { font-weight: 400; margin-left: .5em; }
.sides .halves { display: grid; grid-template-columns: 1fr 1fr; gap: 0 20px; } .halves > div { min-width: 0; }
.halves h4 { margin: 4px 0 8px; padding-bottom: 4px; border-bottom: 1px solid var(--rule); font-size: .8125rem; }
.halves dl { margin: 0; } .halves dt { font-weight: 400; font-size: .8125rem; line-height: 1.3; color: var(--soft); }
.halves dd { margin: 0 0 10px; font-variant-numeric: tabular-nums; line-height: 1.35; }
.halves dd small { margin-left: .3em; white-space: nowrap; }
.halves dd small.range { display: block; margin: 0; } .halves dd.lost b { color: var(--bad); }
.bar { position: relative; display: block; height: 6px; margin: 4px 0 3px; border-radius: 3px; background: var(--rule); }
.bar i { position: absolute; inset: 0 auto 0 0; border-radius: 3px; } .bar u { position: absolute; top: -3px; bottom: -3px;
  width: 2px; margin-left: -1px; background: var(--ink); }
.bar, .bar i, .bar u, .swatch { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.intact { color: var(--good); } .success { color: var(--half); } .failed { color: var(--bad); } .badge { white-space: nowrap; }
.plot .gtitle, .plot [class*="tick"] text, .plot [class*="title"], .plot .annotation-text,
.plot .legendtext, .plot .bartext { fill: var(--ink) !important; }
.plot .errorbar path { stroke: var(--ink) !important; }
.plot .gridlayer path, .plot .zerolinelayer path, .plot [class*="lines-above"] { stroke: var(--rule) !important; }
footer { padding-block: 10px 50px; color: var(--soft); font-size: .875rem; }
@media (max-width: 620px) { body > * { padding-inline: 14px; } header { padding-top: 26px; } 
  th, td, caption { padding-inline: 10px; }
  figure { padding: 10px 6px; } figcaption { padding-inline: 6px; } .scroll th:first-child { min-width: 9em; }
  .judged tr { display: grid; grid-template-columns: 4fr 7fr 7fr 4fr; border-top: 1px solid var(--rule); }
  .judged td, .judged tbody th { border: 0; } .judged tbody th { grid-column: 1 / -1; padding-bottom: 0; }
  .judged thead tr { border: 0; } .judged thead th:first-child { display: none; } .judged td:first-of-type { text-align: left; }
  .judged thead th:nth-child(2) { text-align: left; } }
@media print { body { background: #fff; font-size: 11pt; } nav, .skip, .modebar { display: none; }
  section { padding-block: 12px; }
  body > * { max-width: none; padding-inline: 0; } th, td { padding-inline: 6px; }
  .scroll { overflow: visible; } figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; } }
"""

SCRIPT = """
for (const place of document.querySelectorAll("[data-figure]")) {
  const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
  Plotly.newPlot(place, figure.data, figure.layout,
    {responsive: true, displaylogo: false, modeBarButtons: [["toImage"]]});
  // Paper is narrower than a screen, and no resize is announced before printing.
  addEventListener("beforeprint", () => Plotly.relayout(place, {width: 640, autosize: false}));
  addEventListener("afterprint", () => Plotly.relayout(place, {width: null, autosize: true}));
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
"""

MACROS = """
{%- macro rate(r) -%}
<td class="num">{{ r.rate | percent }}<small>{{ r.low | percent }} to {{ r.high | percent }}</small></td>
{%- endmacro -%}
{%- macro plot(id, alt, caption) -%}
<figure><div class="plot" role="img" aria-label="{{ alt }}" data-figure="{{ id }}"></div>
<figcaption>{{ caption }}</figcaption></figure>
<script type="application/json" id="{{ id }}">{{ figures[id] }}</script>
{%- endmacro -%}
"""
"""What pages write rates and figures with."""

HEAD = """
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }}</title>
<link rel="icon" href="data:,">
<style>{{ css }}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the results</a>
"""
"""How every page begins, up to its header; ``title`` is its title."""

_PAGE = (
    MACROS
    + """
{%- macro number(x, digits=3) -%}<td class="num">{{ x | fixed(digits) }}</td>{%- endmacro -%}
{%- macro mean(e) -%}
<td class="num">{% if e %}{{ e.value | fixed(3) }}<small>{{ e.low | fixed(3) }} to {{ e.high | fixed(3) }}</small>
{%- else %}&ndash;{% endif %}</td>
{%- endmacro -%}
{%- macro cost(row) -%}
<td class="num">{{ row.clean_kl | fixed(3) }}
{%- if row.clean_kl_interval is defined %}{% set ends = row.clean_kl_interval %}
<small>{{ ends.low | fixed(3) }} to {{ ends.high | fixed(3) }}</small>{% endif %}</td>
{%- endmacro -%}
{%- macro name(n) -%}
<span class="swatch" style="background:{{ looks[n].colour }}"></span>{{ n | replace("_", " ") }}{%- endmacro -%}
{%- macro answer(a) -%}
<div><h4><span>{{ name(a.condition) }}</span><span class="badge {{ a.kind }}">{{ a.badge }}</span></h4>
<pre dir="auto">{{ a.text }}</pre>
{% if a.reason %}<p class="soft">{{ a.reason }}</p>{% endif %}</div>
{%- endmacro -%}
{%- macro facts(title, pairs) -%}
<div><h3>{{ title }}</h3><dl>
{% for key, value in pairs %}
<dt>{{ key }}</dt><dd>{{ value }}</dd>
{% endfor %}
</dl></div>
{%- endmacro -%}
{%- macro half(title, items, colour) -%}
<div><h4>{{ title }}</h4><dl>
{% for item in items %}
<dt>{{ item.what }}</dt>
<dd{% if item.lost %} class="lost"{% endif %}><b>{{ item.value }}</b>
{% if item.before %}<small>{{ item.before }}</small>{% endif %}
{% if item.bar %}<span class="bar" aria-hidden="true"><i style="width: {{ item.bar.at }}; background: {{ colour }}"></i>
<u style="left: {{ item.bar.before }}"></u></span>{% endif %}
<small class="range">{{ item.interval }}</small></dd>
{% endfor %}
</dl></div>
{%- endmacro -%}
{%- macro judged(rows, caption, about) -%}
<div class="scroll" tabindex="0" role="region" aria-label="{{ caption }}"><table class="judged"><caption>{{ caption }}</caption>
<thead><tr><th scope="col">condition</th><th scope="col" class="num">strength</th><th scope="col" class="num">success</th>
<th scope="col" class="num">intact</th><th scope="col" class="num">clean KL</th></tr></thead><tbody>
{% for n, row in rows %}
<tr><th scope="row">{{ name(n) }}{% if about %}<small>{{ about[n] }}</small>{% endif %}</th>
<td class="num">{{ row.strength | strength }}</td>{{ rate(row.success) }}{{ rate(row.intact) }}{{ cost(row) }}</tr>
{% endfor %}
</tbody></table></div>
{%- endmacro -%}
"""
    + HEAD
    + """<header>
<p class="eyebrow">interp_transfer &middot; task {{ result.task }} &middot; seed {{ result.seed }}</p>
<h1>{% for word in said.verdict.split() %}<span>{{ word }}</span> {% endfor %}</h1>
{% for sentence in said.numbers %}<p{% if loop.first %} class="lead"{% endif %}>{{ sentence }}</p>
{% endfor %}
{% if route %}
<ol class="route" aria-label="The way of the vector">
{% for step in route %}
<li><span class="soft">{{ step.what }}</span><b>{{ step.who }}</b>
<code class="soft">{{ step.site }}</code><span class="soft">{{ step.how }}</span></li>
{% endfor %}
</ol>
{% endif %}
</header>
<nav aria-label="Sections"><ul>
{% for id, text in sections %}
<li><a href="#{{ id }}">{{ text }}</a></li>
{% endfor %}
</ul></nav>
<main id="main">
<section id="conditions">
<h2>What each intervention did</h2>
{% if result.description %}<p>{{ result.description }}</p>{% endif %}
<p><b>Success</b> is the share of prompts on which the intervention did what it is for. <b>Intact</b> is the share on which it
did so <em>and</em> the answer is a valid one: removing a behaviour by breaking the model is no success. <b>Clean KL</b> is the
cost elsewhere: how far the model&rsquo;s predictions move, in nats per token, on prompts that need no intervention.</p>
<noscript><p>The figures need scripts; the tables hold the same numbers.</p></noscript>
{{ plot("figure-conditions", "Bars: success, intact and clean KL of each condition. The table below holds the same numbers.",
 "Pale bars: success. Solid bars: intact. Whiskers: 95% intervals. Clean KL is in nats per token. All conditions answered the
same held-out prompts.") }}
{{ judged(result.conditions.items(), counted, glossary) }}
</section>
{% if measures or fits or recovered %}
<section id="side-effects">
<h2>Side effects</h2>
{% if sides %}
<p>What each vector does, and what the model pays for it elsewhere. On the left the task: success, intact, and how far the
predictions of given answers change. On the right what should stay as it is: predictions of the model&rsquo;s own answers to
clean prompts and of plain English, and what else the model can do.</p>
<div class="sides">
{% for card in sides %}
<article><h3>{{ name(card.name) }}<small class="soft">strength {{ card.strength | strength }}</small></h3>
<div class="halves">{{ half("Effect", card.does, looks[card.name].colour) }}{{ half("Cost", card.costs, looks[card.name].colour)
}}</div></article>
{% endfor %}
</div>
<p class="soft">95% intervals below each number. The line across a bar, and &ldquo;was&rdquo;, is the unsteered model. In red:
more than ten points lost. Losses and KL are per token; own answers are those that show what is to be removed. Success and
intact of random pool all draws, the rest is of the first. n&nbsp;=&nbsp;{{ sides[0].n }} clean prompts.</p>
{% endif %}
<details><summary>Other measures</summary>
{% if measures %}
<p>All conditions read the same tokens. Own answers are those of the unsteered model; to the task&rsquo;s prompts they show
what is to be removed, so there a divergence is wanted. Agreement is the share of tokens for which the likeliest next token is
the same. Perplexity is the exponential of the loss.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Measures of predictions"><table>
<caption>95% intervals below each number</caption>
<thead><tr><th scope="col">predictions of</th>
{% for n in measures.names %}<th scope="col" class="num">{{ n | replace("_", " ") }}</th>{% endfor %}
<th scope="col" class="num">n</th></tr></thead><tbody>
{% for row in measures.rows %}
<tr><th scope="row">{{ row.read }}<small>{{ row.what }}</small></th>
{% for c in row.cells %}
<td class="num">{% if c %}{{ c.value }}<small>{{ c.interval }}</small>{% else %}&ndash;{% endif %}</td>
{% endfor %}
<td class="num">{{ row.n }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{% if fits %}
<p>How well the mapper reproduces the target&rsquo;s activations, token by token, on prompts that it was not fitted on. The FVU
of a class is about the mean of that class; the share of the error says where the squared error lies. 95% intervals below each
number, over prompts.</p>
<div class="scroll" tabindex="0" role="region" aria-label="The mapper by class of token"><table>
<thead><tr><th scope="col">tokens</th><th scope="col" class="num">FVU</th><th scope="col" class="num">cosine</th>
<th scope="col" class="num">ratio of norms</th><th scope="col" class="num">share of the error</th>
<th scope="col" class="num">rows</th></tr></thead><tbody>
{% for group, class, fit in fits %}
<tr><th scope="row">{{ class }}<small>{{ group }}</small></th>
{{ mean(fit.fvu) }}{{ mean(fit.cosine) }}{{ mean(fit.norm_ratio) }}{{ mean(fit.share_of_error) }}
<td class="num">{{ fit.n }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{% if recovered %}
<p>With the mapper&rsquo;s activations in place of the site&rsquo;s own, the loss of the model&rsquo;s own answers to clean
prompts is {{ recovered.loss | short }} nats per token; it is {{ recovered.plain | short }} as the model is, and
{{ recovered.ablated | short }} with the site&rsquo;s mean.
{% if recovered.share is not none %}So {{ recovered.share | percent }} of what mean ablation costs is recovered.{% endif %}</p>
{% endif %}
</details>
</section>
{% endif %}
{% if result.sweep %}
<section id="strength">
<h2>How strong, and at what cost</h2>
<p>Strength multiplies the vector; at 1 a steering vector is the full difference between the two sides of its contrast. Too
weak and nothing happens, too strong and the model breaks, so it would be unfair to compare vectors at one arbitrary strength.
{% if result.strength_rule %}
Each was given its own, chosen on {{ result.strength_rule.n }} {{ result.strength_rule.split }} prompts:
{{ result.strength_rule.rule }}.
The budget is {{ result.strength_rule.budget_nats_per_token | short }} nats per token of clean KL, the same for all: the mean
divergence between the predictions of the steered and the unsteered model along the unsteered model&rsquo;s own answers to clean
prompts.
{% endif %}</p>
{{ plot("figure-strength", "Curves: success, intact and clean KL against strength. The table below holds the same numbers.",
 "Bands: 95% intervals. Rings: the strength that was chosen, and that the figures above were measured with.") }}
<details><summary>The same as a table</summary>{{ judged(swept, "Strength sweep, 95% intervals below each share", none) }}
</details>
{% if result.at_strength_one %}
<h3>With every vector at strength 1</h3>
<p>Held-out prompts again, but nothing is chosen: each vector is added as it is.</p>
{{ judged(result.at_strength_one.items(), "At strength 1, 95% intervals below each share", none) }}
{% endif %}
</section>
{% endif %}
{% if variants %}
<section id="variants">
<h2>Other ways of moving the vector</h2>
<p>A mapper <i>f</i> turns activations of the source model into activations of the target model. It is not obvious how such a
map should carry a <em>direction</em>; each row is one way of doing it, at its own strength, chosen by the same rule.</p>
<dl class="pairs">{% for mode, text in modes %}<dt>{{ mode }}</dt><dd>{{ text }}</dd>{% endfor %}</dl>
<p>FVU is the share of the variance of held-out target activations that the mapper leaves unexplained (0 is perfect, 1 is no
better than the mean); cosine is between the moved vector and the native one.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Other mappers and modes"><table>
<caption>95% intervals below each share</caption>
<thead><tr><th scope="col">mapper, mode</th><th scope="col" class="num">strength</th><th scope="col" class="num">success</th>
<th scope="col" class="num">intact</th><th scope="col" class="num">clean KL</th><th scope="col" class="num">FVU</th>
<th scope="col" class="num">norm</th><th scope="col" class="num">cosine</th></tr></thead><tbody>
{% for v in variants %}
<tr{% if v.main %} class="this"{% endif %}><th scope="row">{{ v.mapper }}, {{ v.mode }}{% if v.main %}<small>the moved vector
above</small>{% endif %}</th><td class="num">{{ v.strength | strength }}</td>{{ rate(v.success) }}{{ rate(v.intact) }}
{{ cost(v) }}{{ number(v.fvu) }}{{ number(v.norm, 2) }}{{ number(v.cosine_to_native) }}</tr>
{% endfor %}
</tbody></table></div>
</section>
{% endif %}
{% if readings %}
<section id="readings">
<h2>What else was read off the answers</h2>
<p>The same completions by a second judge, by groups of prompts, or as the paper scores them. Of several random draws the first
is read.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Other readings"><table>
<caption>95% intervals below each share; n in the last column</caption>
<thead><tr><th scope="col">reading</th>
{% for n in result.conditions %}<th scope="col" class="num">{{ n | replace("_", " ") }}</th>{% endfor %}
<th scope="col" class="num">n</th></tr></thead><tbody>
{% for reading, shares in readings.items() %}
<tr><th scope="row">{{ reading }}</th>
{% for r in shares %}{% if r %}{{ rate(r) }}{% else %}<td class="num">&ndash;</td>{% endif %}{% endfor %}
<td class="num">{{ shares | select | map(attribute="n") | max }}</td></tr>
{% endfor %}
</tbody></table></div>
{% if differing %}
<details><summary>Answers on which the judges differ</summary>
<p>The first two of each condition. The badge is the exact judge&rsquo;s.</p>
{% for example in differing %}
<article><pre class="prompt">{{ example.prompt }}</pre>
<div class="answers">{% for a in example.answers %}{{ answer(a) }}{% endfor %}</div></article>
{% endfor %}
</details>
{% endif %}
</section>
{% endif %}
<section id="completions">
<h2>What the model said</h2>
<p>The first {{ examples | length }} of {{ asked }} held-out prompts, not selected, and how each condition answered.</p>
{% if marked %}
<p><span class="legend"><mark>token</mark> steered</span><span class="legend"><span>token</span> not steered</span>
<span class="legend">generated tokens: {{ generated }}</span></p>
{% endif %}
<p><span class="legend intact">&#10003; intact</span><span class="legend success">&#9680; success, but not a valid answer</span>
<span class="legend failed">&#10007; no success</span></p>
{% for example in examples %}
<article><h3>Prompt {{ loop.index }}</h3>
<pre class="prompt">
{%- for piece, steered in example.pieces -%}
{%- if steered %}<mark>{{ piece }}</mark>{% else %}<span>{{ piece }}</span>{% endif -%}
{%- endfor -%}
</pre>
<div class="answers">
{% for a in example.answers %}{{ answer(a) }}{% endfor %}
</div></article>
{% endfor %}
</section>
<section id="provenance">
<h2>Where the numbers come from</h2>
<div class="cards">
{% for title, pairs in cards %}{{ facts(title, pairs) }}{% endfor %}
</div>
<h3>Run it again</h3>
{% if command %}<pre class="command">{{ command }}</pre>{% endif %}
<p class="soft">The same command gives the same numbers. <code>interp-transfer report FOLDER</code> draws this page again from
the folder&rsquo;s result.json and completions.json.</p>
</section>
</main>
<footer><p>One file, no network: open it anywhere.</p></footer>
{% for script in scripts %}<script>{{ script }}</script>{% endfor %}
</body>
</html>
"""
)


def _percent(share: float) -> str:
    from interp_transfer.plots.style import percent

    return percent(share)


def short(value: float) -> str:
    """A number in three digits, with a true minus sign."""
    return f"{value:.3g}".replace("-", "\u2212") if abs(value) >= 1e-3 else f"{value:.3f}".replace("-0.000", "0")


def _fixed(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.replace("-", "\u2212") if float(text) else text.lstrip("-")


def _strength(value: float) -> str:
    return f"{value:g}" if value else "\u2013"


_ENVIRONMENT = Environment(autoescape=True, finalize=_finalize, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_ENVIRONMENT.filters.update(percent=_percent, short=short, fixed=_fixed, strength=_strength)
_TEMPLATE = _ENVIRONMENT.from_string(_PAGE)
