"""Clean and corrupted prompts, token for token of equal length, and a metric of the logits after their last token."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.activations.capture import TOKENS_PER_BATCH, by_length, logits_of
from interp_transfer.activations.positions import token_spans
from interp_transfer.interventions.hooks import applied
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.patching.effects import Place
from interp_transfer.models.exclusive import exclusive
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.sites import head_parts, hook_points, hooked
from interp_transfer.models.tokens import tokenize, tokenizer_of
from interp_transfer.prompts.chats import PromptLike

Metric = Callable[[Float[Tensor, "text vocabulary"], Sequence[int]], Float[Tensor, " text"]]
"""(logits after each prompt's last token, indices of the prompts) -> a number for each; larger means closer to clean."""


def logit_difference(model: HookedModel, right: Sequence[str], wrong: Sequence[str]) -> Metric:
    """Return the metric that subtracts the logit of the wrong answer's first token from that of the right one's.

    Args:
        model: the model whose tokenizer is used.
        right: the right continuation of each prompt, leading space included.
        wrong: a wrong one.

    Raises:
        ValueError: for a right and a wrong answer that begin with the same token.
    """
    tokenizer = tokenizer_of(model)
    firsts = [[ids[0] for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]] for texts in (right, wrong)]
    if same := [i for i, (r, w) in enumerate(zip(*firsts, strict=True)) if r == w]:
        raise ValueError(f"answers {right[same[0]]!r} and {wrong[same[0]]!r} begin with the same token: choose others")

    def difference(logits: Tensor, prompts: Sequence[int]) -> Tensor:
        row = torch.arange(len(logits), device=logits.device)
        r, w = (torch.tensor([side[i] for i in prompts], device=logits.device) for side in firsts)
        return logits[row, r] - logits[row, w]

    return difference


class PromptPairs:
    """Tokenized pairs of clean and corrupted prompts, and the sites at which they are patched.

    Args:
        model: any hooked model.
        clean: prompts that show the behaviour.
        corrupted: prompts of the same lengths in tokens that do not.
        sites: hook-point names; ``*`` stands for every block.
        edit: whether activations are edited at the sites.

    Raises:
        ValueError: for prompts of unequal lengths, no prompts, or sites that cannot be edited.
    """

    def __init__(
        self,
        model: HookedModel,
        clean: Sequence[PromptLike],
        corrupted: Sequence[PromptLike],
        sites: str | Sequence[str],
        *,
        edit: bool,
    ) -> None:
        self.model = model
        self._points = hook_points(model, sites, edit=edit)
        self.sites = list(self._points)
        if len(clean) != len(corrupted) or not len(clean):
            raise ValueError(
                f"{len(clean)} clean and {len(corrupted)} corrupted prompts: give a twin for each, and at least one"
            )
        self.clean, self.corrupted = tokenize(model, clean), tokenize(model, corrupted)
        for index, (one, other) in enumerate(zip(self.clean, self.corrupted, strict=True)):
            if len(one) != len(other):
                raise ValueError(
                    f"pair {index} has {len(one)} clean and {len(other)} corrupted tokens: patching replaces token by token, "
                    "so choose prompts of equal length"
                )
        self.shortest = min(map(len, self.clean))

    def places(self, by_head: bool) -> list[tuple[Place, slice]]:
        """Return every site, or every head of every site, with its columns."""
        if not by_head:
            return [((site, None), slice(None)) for site in self.sites]
        return [((site, head), part) for site in self.sites for head, part in enumerate(head_parts(self.model, site))]

    def positions(self, by_position: bool) -> tuple[int | None, ...]:
        """Return positions counted from the end as far back as the shortest prompt, or None for all tokens together."""
        return tuple(range(-self.shortest, 0)) if by_position else (None,)

    def tokens(self, positions: Sequence[int | None]) -> tuple[str, ...]:
        """Return the first corrupted prompt's tokens at some positions."""
        texts = [text for text, _ in token_spans(self.corrupted[0], tokenizer_of(self.model))]
        return tuple("all tokens" if p is None else texts[p] for p in positions)

    @torch.no_grad()
    def score(self, metric: Metric, rows: Sequence[list[int]], *interventions: Intervention) -> Float[Tensor, " text"]:
        """Return the metric of each prompt."""
        out = torch.zeros(len(rows))
        for batch in by_length([len(row) for row in rows], TOKENS_PER_BATCH):
            with applied(self.model, *interventions, rows=torch.tensor(batch)):
                out[batch] = self._metric_of(metric, [rows[i] for i in batch], batch).cpu()
        return out

    def gradients(self, metric: Metric, batch: list[int]) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
        """Return activations of corrupted prompts with the metric's gradient, by site, and the metric."""
        activations: dict[str, Tensor] = {}

        def recorder(site: str) -> Any:
            def hook(tensor: Tensor, hook: Any) -> Tensor:  # noqa: ARG001 - transformer-lens passes it by name
                # Returned, because the wrapper may otherwise continue with the tensor that this one was computed from.
                activations[site] = tensor.clone() if tensor.requires_grad else tensor.detach().requires_grad_()
                return activations[site]

            return hook

        with torch.enable_grad(), exclusive(self.model), ExitStack() as stack:
            for site, point in self._points.items():
                stack.enter_context(hooked(point, recorder(site)))
            scores = self._metric_of(metric, [self.corrupted[i] for i in batch], batch)
            gradients = torch.autograd.grad(scores.sum(), list(activations.values()))
        pairs = zip(activations.items(), gradients, strict=True)
        return {site: (tensor.detach(), gradient) for (site, tensor), gradient in pairs}, scores.detach().cpu()

    def _metric_of(self, metric: Metric, rows: Sequence[list[int]], prompts: Sequence[int]) -> Tensor:
        logits, real = logits_of(self.model, rows)
        last = (real.sum(dim=1) - 1).to(logits.device)
        values = metric(logits[torch.arange(len(rows), device=logits.device), last].float(), prompts)
        if values.shape != (len(rows),) or not torch.isfinite(values).all():
            raise ValueError(
                f"the metric returned {tuple(values.shape)} for {len(rows)} prompts, or NaN: give a number for each"
            )
        return values
