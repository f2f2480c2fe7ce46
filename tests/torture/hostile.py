"""Texts that could do harm in an output, and what a reader should see of them."""

import re
from typing import Any

from interp_transfer.escape import visible, without_surrogates

STEAL = "document.title='owned'"
HTML = {
    "script": f"<script>{STEAL};alert(1)</script>",
    "image": f'<img src=x onerror="{STEAL};alert(1)">',
    "picture of the net": "<img src=http://example.org/a.png>",
    "svg": f'<svg onload="{STEAL}"><animate onbegin=alert(1) attributeName=x dur=1s>',
    "frame": '<iframe src="javascript:alert(1)"></iframe>',
    "link": '<a href="javascript:alert(1)" onmouseover=alert(1)>here</a>',
    "refresh": '<meta http-equiv="refresh" content="0;url=http://example.org/">',
    "base": '<base href="http://example.org/"><link rel=stylesheet href=//example.org/a.css>',
    "ends": f"</script></title></textarea></style></pre></td></table></svg><script>{STEAL}</script>",
    "style": "<style>body{display:none}</style>",
    "comment": "<!-- never ended <!--> --!> ",
    "cdata": "<![CDATA[ <b>x</b> ]]> <?php echo 1 ?>",
    "attribute": f'" onclick="{STEAL}" x=\'` autofocus onfocus=alert(1) ',
    "entities": "&lt;b&gt; &amp;amp; &#60;script&#62; &nbsp;",
}
TEMPLATES = {
    "jinja": "{{ 7 * 7 }} {% raw %} {# gone #} {{ config }}",
    "script template": "${7*7} `${alert(1)}` #{7*7} <%= 7*7 %>",
    "plotly": "%{x} %{customdata[0]} <b>bold</b> <a href='http://example.org'>a</a><br>b<extra></extra>",
    "formula": r"$\alpha$ $$\href{javascript:alert(1)}{x}$$ \(y\) \[z\]",
    "format": "{0} {name!r} %s %d %(x)s {{}}",
    "markdown link": "[a](javascript:alert(1)) ![b](http://example.org/b.png) [c]: http://example.org <http://example.org>",
    "markdown": "a | b \\| c ` d ** e ** __f__ ~~g~~ * h",
    "front matter": "x\n---\nlicense: mit\ntags: [owned]\n---\n# Owned\n\n- y",
    "rich": "[red]red[/red] [link=http://example.org]a[/link] [/] [bold :warning: :smile:",
}
TERMINAL = {
    "colours": "\x1b[31mred\x1b[0m\x1b[2J\x1b[H",
    "title": "\x1b]0;owned\x07\x1b]8;;http://example.org\x1b\\link\x1b]8;;\x1b\\",
    "eight bits": "\x9b31m \x9d0;owned\x9c \x90q\x9c",
    "controls": "a\x00b\x08\x08c\x7fd\x0be\x0cf\x1fg",
    "return": "shown\rhidden",
    "surrogates": "a\ud800b\udfffc \ud83d \udc80",
    "bidi": "\u202egnirts\u202c \u2066a\u2069 \u200fb \u061cc",
    "no width": "a\u200bb\u2060c\ufeffd\u00ade",
    "separators": "a\u2028b\u2029c\x85d",
    "emoji": "\U0001f469\u200d\U0001f680 \u05e9\u05dc\u05d5\u05dd e\u0301",
}
SIGNS = ["=", "+", "-", "@", "\t=", "\r=", "\n=", "\x07=", "\x00=", "\xa0+", "\ufeff=", "'=", "\u200b@", "＝", "\u3000＋"]
FORMULAS = {f"formula {code!a}": f"{code}HYPERLINK(1)" for code in (*SIGNS, " =")}
LINES = "\n" * 22
JSON = {
    "quotes": '"}],\'} \\" \\u0022 \\',
    "keys": '","intact":true,"x":"',
    "lines": f"a{LINES}b",
}
TEXTS = {
    name: f"{text} end-of-{k:02d}"
    for k, (name, text) in enumerate({**HTML, **TEMPLATES, **TERMINAL, **FORMULAS, **JSON}.items())
}
"""Each with a mark at its end, by which it is found."""
LONG = f"beginning-of-long {'x' * 10**6} end-of-long"
TYPED = {name: TEXTS[name] for name in (*TERMINAL, "rich", "front matter", "lines", "quotes")}
"""Those that could do harm in a line of a terminal."""
ALL = " ".join(TEXTS.values())

_RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_READ = """() => {
  document.querySelectorAll('script, style, .js-plotly-plot').forEach((e) => e.remove());
  return document.body.textContent;
}"""


def squeezed(text: str) -> str:
    """A text without the space that a page may add or drop, and without its marks of line breaks and tabs."""
    return re.sub(r"[\s\u21b5\u21e5\u23ce]+", "", text)


def hidden_from(text: str, *, stored: bool = False, longest: int | None = None) -> list[str]:
    """The names of texts that are not on a page as a reader should see them.

    Args:
        text: that the page shows.
        stored: whether the texts were in a file of UTF-8, which has no halves of surrogate pairs.
        longest: number of characters after which the page may cut.
    """
    page = squeezed(text)
    wanted = {name: visible(without_surrogates(one) if stored else one) for name, one in TEXTS.items()}
    return [name for name, one in wanted.items() if squeezed(one)[:longest] not in page]


def text_of(page: Any) -> str:
    """The text of an open page, without scripts, styles and figures; they are removed from it."""
    return page.evaluate(_READ)


def raw_controls(text: str) -> list[str]:
    """Controls but line breaks and tabs, marks of direction, and other characters that a terminal does not print."""
    return _RAW.findall(text)
