"""How the block to steer at was found: the first-order effect of every block's vector, and the blocks that were tried."""

import re
from collections.abc import Mapping
from typing import Any

from plotly.graph_objects import Bar, Figure

from interp_transfer.plots.style import FAINT, axis, figure_text, layout, percent, styles


def site_bars(search: Mapping[str, Any], *, title: str = "") -> Figure:
    """Draw a bar for each block: its first-order effect, or where depth made the short list, success on validation prompts.

    Args:
        search: site, predicted and tried, as ``SiteSearch.to_dict`` returns them.
        title: above the figure; none if empty.
    """
    tried: Mapping[str, Mapping[str, float]] = search["tried"]
    predicted: Mapping[str, float] = search["predicted"]
    heights = predicted or {site: outcome["success"] for site, outcome in tried.items()}
    look = styles(["moved", "native"])
    colours = [look["moved" if s == search["site"] else "native"].colour if s in tried else FAINT for s in heights]
    figure = Figure(
        Bar(
            x=[_short(site) for site in heights],
            y=list(heights.values()),
            marker={"color": colours, "opacity": [1.0 if site in tried else 0.45 for site in heights]},
            text=[percent(tried[site]["intact"]) if site in tried else "" for site in heights],
            textposition="outside",
            cliponaxis=False,
            customdata=[_described(site, tried.get(site)) for site in heights],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    measured = "first-order effect, logits" if predicted else "success on validation prompts"
    figure.update_layout(**layout(title, 300), showlegend=False)
    figure.update_xaxes(axis(type="category", title={"text": "block", "font": {"size": 13}}))
    figure.update_yaxes(axis(title={"text": measured, "font": {"size": 13}}))
    return figure


def _short(site: str) -> str:
    """The number of a block, or the name of another site."""
    block = re.fullmatch(r"blocks\.(\d+)\.hook_resid_pre", site)
    return block.group(1) if block else figure_text(site)


def _described(site: str, outcome: Mapping[str, float] | None) -> str:
    name = f"<b>{figure_text(site)}</b>"
    if outcome is None:
        return f"{name}<br>not tried"
    shares = ", ".join(f"{what} {percent(outcome[what])}" for what in ("success", "intact"))
    return f"{name}<br>{shares}<br>strength {outcome['strength']:.3g}, clean KL {outcome['clean_kl']:.2g}"
