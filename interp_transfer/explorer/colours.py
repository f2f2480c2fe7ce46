"""Readings that colour the tokens of a text: a projection, a probe, or how much a vector changes what is predicted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp_transfer.activations.capture import capture
from interp_transfer.activations.positions import token_spans
from interp_transfer.escape import shown, visible
from interp_transfer.features.probes import Probe
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.predictions import LOGITS_PER_BATCH, divergence, predicted
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.tokens import token_text, tokenizer_of
from interp_transfer.vectors.vector import SteeringVector

CHANGES = 5
"""Tokens whose probabilities changed most, of each prediction."""


@dataclass(frozen=True)
class Reading:
    """A number for each token of a text.

    Attributes:
        what: the number and its unit.
        values: None for tokens that have none.
        changes: for each token, predictions that changed most: (token, probability before, after).
    """

    what: str
    values: Sequence[float | None]
    changes: Sequence[Sequence[tuple[str, float, float]]] = ()

    @property
    def most(self) -> float:
        """The largest number but that of the first token, whose activation is massive in many models."""
        return max((abs(value) for value in self.values[1:] if value is not None), default=0.0) or 1.0

    def tokens(self, model: HookedModel, ids: list[int], prompt: int) -> dict[str, Any]:
        """Return the tokens of the prompt and of what follows it as the page takes them."""
        rows = []
        for k, (piece, _) in enumerate(token_spans(ids, tokenizer_of(model))):
            value = self.values[k]
            row: dict[str, Any] = {"text": shown(piece), "value": None if value is None else float(f"{value:.4g}")}
            if self.changes and self.changes[k]:
                row["changes"] = [[shown(token), round(a, 4), round(b, 4)] for token, a, b in self.changes[k]]
            rows.append(row)
        return {"prompt": rows[:prompt], "tokens": rows[prompt:], "most": float(f"{self.most:.4g}"), "what": visible(self.what)}


def projection(model: HookedModel, ids: list[int], vector: SteeringVector) -> Reading:
    """The component of the unsteered model's activations along a vector, in units of the activation."""
    unit = vector.direction.float() / max(vector.norm, 1e-30)
    return Reading(f"component along the vector at {vector.site}", (_rows(model, ids, vector.site) @ unit).tolist())


def log_odds(model: HookedModel, ids: list[int], probe: Probe) -> Reading:
    """The log-odds that a probe gives to the unsteered model's activations."""
    return Reading(f"log-odds of the probe at {probe.site}", probe(_rows(model, ids, probe.site)).tolist())


@torch.no_grad()
def change(model: HookedModel, ids: list[int], prompt: int, steer: Sequence[Intervention]) -> Reading:
    """How much interventions change the prediction that each token was drawn from: KL divergence in nats, and the tokens.

    Both models read the same text. The first token was not predicted; of a long text the last tokens alone are read off.
    """
    first = max(0, len(ids) - 1 - LOGITS_PER_BATCH // int(model.cfg.d_vocab))
    column = torch.arange(len(ids))
    scored = ((column >= first) & (column < len(ids) - 1))[None]
    before = predicted(model, [ids], scored)
    after = predicted(model, [ids], scored, *steer, prompt_lengths=torch.tensor([prompt]), rows=torch.tensor([0]))
    likely = before.exp()
    kl = divergence(before, after, likely).clamp(min=0)
    new = after.exp()
    top = (new - likely).abs().topk(min(CHANGES, new.shape[1]), dim=1).indices
    tokenizer = tokenizer_of(model)
    changes = [
        [(token_text(tokenizer, int(t)), float(likely[row, t]), float(new[row, t])) for t in chosen]
        for row, chosen in enumerate(top.tolist())
    ]
    none = first + 1
    return Reading("change of the prediction, nats", [None] * none + kl.tolist(), [[]] * none + changes)


def _rows(model: HookedModel, ids: list[int], site: str) -> Tensor:
    return capture(model, [""], site, ids=[ids], progress=False)[site].float()
