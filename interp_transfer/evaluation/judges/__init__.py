"""Judges: by rule (`rules`, looked up by `load`), and by a model or an endpoint (`opinion` and what uses it)."""

from interp_transfer.evaluation.judges.named import load
from interp_transfer.evaluation.judges.opinion import Item, Judged, ModelJudge, Opinion, Threshold, ask

__all__ = ["Item", "Judged", "ModelJudge", "Opinion", "Threshold", "ask", "load"]
