"""Judges that need a model or an endpoint, and what each is worth."""

from interp_transfer.evaluation.judges.opinion import Item, Judged, ModelJudge, Opinion, Threshold, ask

__all__ = ["Item", "Judged", "ModelJudge", "Opinion", "Threshold", "ask"]
