"""Numbers and shares as pages and sentences show them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from interp_transfer.plots.style import percent

LARGEST_LOSS = 700.0
"""The largest loss, in nats, whose exponential is a finite float."""


def short(value: float) -> str:
    """Return a number in three digits, with a true minus sign."""
    return _minus(f"{value:.3g}") if abs(value) >= 1e-3 else f"{value:.3f}".replace("-0.000", "0")


def fixed(value: float, digits: int) -> str:
    """Return a number with ``digits`` digits after the point, with a true minus sign and without a minus zero."""
    text = f"{value:.{digits}f}"
    return _minus(text) if float(text) else text.lstrip("-")


def strength(value: float) -> str:
    """Return a strength in three digits; a dash for 0, where nothing is added."""
    return f"{value:.3g}" if value else "\u2013"


def points(share: float) -> str:
    """Return a difference of shares in percentage points, signed."""
    return _minus(f"{100 * share:+.1f}").replace("+0.0", "0").removesuffix(".0")


def perplexity(loss: float) -> str:
    """Return the exponential of a loss in nats per token: whole from 100 on, a power of ten from 10 million on."""
    if loss > LARGEST_LOSS:
        return "above 1e304"
    value = math.exp(loss)
    return short(value) if value < 100 else f"{value:,.0f}" if value < 1e7 else f"{value:.1e}"


def p_value(p: float) -> str:
    """Return a p-value with its relation, such as "= 0.012" or "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.0995 else f"= {p:.2f}"


def interval(estimate: Mapping[str, Any], show: Callable[[float], str] = percent) -> str:
    """Return the ends of an interval, such as "86.7% to 95%"."""
    return f"{show(estimate['low'])} to {show(estimate['high'])}"


def with_interval(share: Mapping[str, Any]) -> str:
    """Return a share and its interval, such as "91.5% (86.7% to 95%)"."""
    return f"{percent(share['rate'])} ({interval(share)})"


def number_of_answers(conditions: Mapping[str, Any]) -> str:
    """Return the n that most conditions have, and the conditions with another one."""
    counts = {name.replace("_", " "): c["intact"]["n"] for name, c in conditions.items()}
    usual = max(counts.values(), key=list(counts.values()).count)
    others = [f"{name} n = {n}" for name, n in counts.items() if n != usual]
    return f"n = {usual}{' (' + ', '.join(others) + ')' if others else ''}"


def _minus(text: str) -> str:
    return text.replace("-", "\u2212")
