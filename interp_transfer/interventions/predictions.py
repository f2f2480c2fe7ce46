"""Next-token predictions under interventions, and their divergence from those of the unsteered model."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp_transfer.activations.capture import by_length, logits_of, out_of_memory, pad, pad_token
from interp_transfer.activations.finite import all_finite
from interp_transfer.interventions.hooks import TokensRead, applied
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.read_ahead import (
    Below,
    first_block,
    has_plain_cache,
    read_beginning,
    read_rest,
    same_everywhere,
    sites_of,
)
from interp_transfer.models.blocks import logits_after, recording, same_from, starting_at
from interp_transfer.models.bypass import has_no_hooks
from interp_transfer.models.hooked_model import HookedModel, device_of, huggingface_model
from interp_transfer.models.tokens import tokenizer_of
from interp_transfer.progress import progress_bar

LOGITS_PER_BATCH = 50_000_000
"""Maximum number of logits that are read in a batch, which is halved when memory runs out."""
TOKENS_PER_BATCH = 8192
"""Maximum number of tokens in a batch, padding included."""
LOGITS_AT_ONCE = 2**21
"""Number of logits that are compared at once: few enough to stay in a processor's cache, over which most of that time goes."""
KEPT_BYTES = 500_000_000
"""Most memory for passes of the unsteered model that are kept."""


Outputs = dict[int, Any]
"""By block, what the block before it returned in a pass of the unsteered model."""


@dataclass(frozen=True)
class TeacherForced:
    """The effect of interventions on predictions of fixed tokens.

    Attributes:
        kl: divergence from the unsteered model to the model under interventions, in nats per token, for each text.
        agreement: share of the answer's tokens for which both have the same most likely token, for each text.
        loss: mean negative log-likelihood of the answer's tokens under interventions, nats per token, for each text.
        loss_before: the same for the unsteered model.
    """

    kl: Float[Tensor, " text"]
    agreement: Float[Tensor, " text"]
    loss: Float[Tensor, " text"]
    loss_before: Float[Tensor, " text"]


class Unsteered:
    """Passes of the unsteered model over batches of texts, kept for further settings, up to ``KEPT_BYTES``.

    One model and the same scored tokens are assumed.
    """

    def __init__(self) -> None:
        self._passes: dict[tuple[int, ...], tuple[list[list[int]], Tensor, Outputs]] = {}
        self._free = KEPT_BYTES

    def get(self, begins: Collection[int], batch: Sequence[int], texts: list[list[int]]) -> tuple[Tensor, Outputs] | None:
        """Return the logits of a batch, and what blocks before ``begins`` and maybe others returned, if they are kept."""
        known, logits, outputs = self._passes.get(tuple(batch), (None, None, None))
        if known != texts or logits is None or outputs is None or not outputs.keys() >= set(begins):
            return None
        return logits, outputs

    def add(self, batch: Sequence[int], texts: list[list[int]], logits: Tensor, outputs: Outputs) -> None:
        """Keep them if there is room."""
        known, _, before = self._passes.get(tuple(batch), (None, None, {}))
        new = outputs if known != texts else {first: output for first, output in outputs.items() if first not in before}
        parts = [part for each in new.values() for part in (each if isinstance(each, tuple) else (each,))]
        size = sum(part.nbytes for part in (*parts, *([] if known == texts else [logits])) if isinstance(part, Tensor))
        if size <= self._free and (known is None or known == texts):
            self._passes[tuple(batch)] = texts, logits, {**before, **new}
            self._free -= size


def predicted(
    model: HookedModel,
    texts: Sequence[Sequence[int]],
    scored: Bool[Tensor, "text column"],
    *interventions: Intervention,
    **placed: Tensor,
) -> Float[Tensor, "row token"]:
    """Return the log-probabilities of the next token, a row for each scored token, text by text.

    Args:
        model: any hooked model.
        texts: token ids.
        scored: the tokens after which the prediction is returned, in texts padded on the right.
        interventions: applied in the order of the arguments.
        placed: ``prompt_lengths`` and ``rows`` of ``applied``.
    """
    return _logits(model, texts, scored, *interventions, **placed).float().log_softmax(dim=-1)


def _logits(
    model: HookedModel, texts: Sequence[Sequence[int]], scored: Tensor, *interventions: Intervention, **placed: Tensor
) -> Float[Tensor, "row token"]:
    on_logits = any(site.startswith("unembed") for i in interventions for site in sites_of(i))
    with ExitStack() as stack:
        if interventions:
            stack.enter_context(applied(model, *interventions, **placed))
        chosen = [] if on_logits else stack.enter_context(logits_after(model, scored))
        logits, _ = logits_of(model, texts)
    return logits[0] if chosen else logits[scored.to(logits.device)]


def divergence(
    before: Float[Tensor, "row token"], after: Float[Tensor, "row token"], chances: Float[Tensor, "row token"]
) -> Float[Tensor, " row"]:
    """Return the KL divergence from one prediction to the other, in nats; ``chances`` is ``before.exp()``."""
    return (chances * (before - after)).sum(dim=-1)


@torch.no_grad()
def teacher_forced_each(
    model: HookedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    settings: Sequence[Sequence[Intervention]],
    *,
    skip: Sequence[int] | None = None,
    within: Callable[[], AbstractContextManager[Any]] = nullcontext,
    unsteered: Unsteered | None = None,
    progress: bool = False,
) -> list[TeacherForced]:
    """Compare the predictions of the unsteered model with those under interventions, for each of several settings.

    All read the same tokens, prompt and answer. The figures are means over the predictions of the answer's tokens. The
    unsteered model runs once for all settings, and each setting starts at the first block at which it intervenes, unless
    ``within`` changes the model.

    Args:
        model: any hooked model.
        prompts: token ids.
        answers: token ids that follow them.
        settings: interventions that are applied together, for each setting; their positions count the answer's tokens as
            generated.
        skip: how many of each answer's first tokens are read and not scored, such as a reasoning block; none unless given.
        within: makes a context manager around each pass under a setting, such as ``weights_from``.
        unsteered: passes of the unsteered model that an earlier call on the same texts has kept; this call adds its own.
        progress: show a bar when it takes longer than two seconds.

    Raises:
        ValueError: for no texts, or an answer without a token that is scored.
    """
    starts = torch.tensor([len(prompt) for prompt in prompts]) + torch.tensor(skip or [0] * len(prompts))
    counts = torch.tensor([len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]) - starts
    if not len(prompts) or bool((counts < 1).any()):
        raise ValueError("the divergence needs at least one text, and a token in each answer")
    rows = [[*p, *a] for p, a in zip(prompts, answers, strict=True)]
    read = LOGITS_PER_BATCH / int(model.cfg.d_vocab) / int(counts.sum()) * sum(map(len, rows))
    batches = by_length([len(row) for row in rows], max(1, min(int(read), TOKENS_PER_BATCH)))
    total = len(batches) * len(settings)
    firsts = _begins(model, settings, len(batches)) if within is nullcontext else [0] * len(settings)
    hf = huggingface_model(model)
    shares = within is nullcontext and hf is not None and has_no_hooks(model) and has_plain_cache(hf)
    forced = _Forced(model, rows, [len(prompt) for prompt in prompts], starts, settings, firsts, within, unsteered, shares)
    sums = torch.zeros(4, len(settings), len(prompts))
    with progress_bar("clean KL", progress, total=total) as bar:
        while batches:
            batch = batches.pop(0)
            before = bar.n
            try:
                sums[:, :, batch] = forced.measure(batch, bar.update)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or len(batch) == 1:
                    raise
                batches = [batch[: len(batch) // 2], batch[len(batch) // 2 :], *batches]
                bar.n, bar.total = before, total + len(settings)
    if not all_finite(sums):
        setting, text = (~torch.isfinite(sums)).any(dim=0).nonzero()[0].tolist()
        raise ValueError(
            f"the model's predictions for text {text} are NaN or infinite under setting {setting}: check its vectors and "
            "strengths, or load the model with dtype='float32'"
        )
    means = (sums / counts).unbind(dim=1)
    return [TeacherForced(kl.clamp(min=0), agreement, loss, loss_before) for kl, agreement, loss, loss_before in means]


@dataclass
class _Forced:
    """Texts whose answers are predicted, batch by batch; fields as the arguments of `teacher_forced_each`.

    Attributes:
        firsts: of each setting the first block that it changes; 0 if all blocks are run for it.
        shares: whether what texts begin with alike may be read once.
        checked: whether it is known that blocks before these may be left out.
    """

    model: HookedModel
    rows: list[list[int]]
    prompt_lengths: list[int]
    starts: Int[Tensor, " text"]
    settings: Sequence[Sequence[Intervention]]
    firsts: list[int]
    within: Callable[[], AbstractContextManager[Any]]
    unsteered: Unsteered | None
    shares: bool
    checked: bool = False

    def measure(self, batch: list[int], done: Callable[[], Any]) -> Float[Tensor, "figure setting text"]:
        """Return sums over the answers' tokens: divergence, agreements, loss, and loss of the unsteered model."""
        texts = [self.rows[i] for i in batch]
        ends = torch.tensor([len(text) for text in texts])
        column = torch.arange(int(ends.max()))
        # Column t predicts token t + 1.
        scored = (column >= self.starts[batch][:, None] - 1) & (column < ends[:, None] - 1)
        placed = {"prompt_lengths": torch.tensor([self.prompt_lengths[i] for i in batch]), "rows": torch.tensor(batch)}
        text, position = scored.nonzero().T
        following = torch.tensor([texts[r][c + 1] for r, c in zip(text.tolist(), position.tolist(), strict=True)])
        logits, outputs = self._unsteered(batch, texts, scored)
        before = logits.float().log_softmax(dim=-1)
        chances, likely = before.exp(), before.argmax(dim=-1)
        loss_before = -_log_probability(before, following)
        sums = torch.zeros(4, len(self.settings), len(batch))
        for index, (interventions, first) in enumerate(zip(self.settings, self.firsts, strict=True)):
            steered = self._predicted(texts, scored, interventions, Below(first, outputs.get(first)), placed)
            figures = []
            for rows in torch.arange(len(text)).split(max(1, LOGITS_AT_ONCE // steered.shape[-1])):
                part = slice(int(rows[0]), int(rows[-1]) + 1)
                after = steered[part].float().log_softmax(dim=-1)
                agreement = (likely[part] == after.argmax(dim=-1)).float().cpu()
                loss = -_log_probability(after, following[part])
                kl = divergence(before[part], after, chances[part]).cpu()
                figures.append(torch.stack([kl, agreement, loss, loss_before[part]]))
            sums[:, index].index_add_(1, text, torch.cat(figures, dim=1))
            done()
        return sums

    def _predicted(
        self,
        texts: list[list[int]],
        scored: Tensor,
        interventions: Sequence[Intervention],
        below: Below,
        placed: dict[str, Tensor],
    ) -> Float[Tensor, "row token"]:
        """Logits under interventions; what texts begin with alike is read once, if it can be."""
        if self.shares and all(map(same_everywhere, interventions)):
            tokens, real = (each.to(device_of(self.model)) for each in pad(texts, pad_token(self.model)))
            given = self.model, tokens, real, interventions
            if (cache := read_beginning(*given, placed["rows"], below, int(scored.int().argmax(dim=1).min()))) is not None:
                left = scored[:, cache.get_seq_length() :]
                tokens_read = TokensRead(tokenizer_of(self.model), placed["prompt_lengths"], placed["rows"])
                with logits_after(self.model, left) as chosen:
                    logits = read_rest(*given, tokens_read, below, cache).logits
                return logits[0] if chosen else logits[left.to(logits.device)]
        with starting_at(self.model, below.first, below.output) if below.first else self.within():
            return _logits(self.model, texts, scored, *interventions, **placed)

    def _unsteered(self, batch: list[int], texts: list[list[int]], scored: Tensor) -> tuple[Tensor, Outputs]:
        """The unsteered model's logits, and what the blocks before those at which settings begin returned."""
        begins = sorted({first for first in self.firsts if first})
        known = self.unsteered.get(begins, batch, texts) if self.unsteered is not None else None
        if known is None:
            with ExitStack() as stack:
                read = {first: stack.enter_context(recording(self.model, first)) for first in begins}
                logits = _logits(self.model, texts, scored)
            outputs = {first: each[0] for first, each in read.items()}
            for first in [] if self.checked else begins:
                if not same_from(self.model, first, outputs[first], logits, lambda: _logits(self.model, texts, scored)):
                    del outputs[first]
                    self.firsts = [0 if each == first else each for each in self.firsts]
            self.checked, known = True, (logits, outputs)
            if self.unsteered is not None:
                self.unsteered.add(batch, texts, *known)
        return known


def _begins(model: HookedModel, settings: Sequence[Sequence[Intervention]], batches: int) -> list[int]:
    """Of each setting the first block that it changes, or 0 where the blocks before are too few to be worth a check."""
    firsts = [first_block(model, [setting]) for setting in settings]
    blocks = int(model.cfg.n_layers)
    worth = {first for first in firsts if firsts.count(first) * batches * first > blocks - first}
    return [first if first in worth else 0 for first in firsts]


def _log_probability(predictions: Float[Tensor, "row token"], tokens: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
    """The log-probability of one token in each row."""
    return predictions.gather(1, tokens.to(predictions.device)[:, None])[:, 0].cpu()
