"""A model under interventions as a model of the lm-evaluation-harness, so that MMLU, SQuAD, ARC and GSM8K run by name.

The harness requests the likelihood of a continuation after a context, the likelihood of a whole text, or a completion of a
context. Interventions act on each, and their positions keep their meaning: the context is the prompt, the continuation is
generated. Without interventions the answers are those of the harness' own class for transformers.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from interp_transfer.activations.capture import by_length, out_of_memory
from interp_transfer.extras import require
from interp_transfer.interventions.generation import generate, generate_tokens
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.predictions import LOGITS_PER_BATCH, predicted
from interp_transfer.interventions.transforms import Running, takes_at
from interp_transfer.models.hooked_model import HookedModel, context_length, device_of
from interp_transfer.models.identity import identity
from interp_transfer.models.tokens import tokenize, tokenizer_fingerprint, tokenizer_of

BATCH_SIZE = 64
"""Maximum number of texts in a batch; fewer where their logits would take too much memory."""
NEW_TOKENS = 256
"""Maximum number of generated tokens where a task sets none; the harness' own default."""
FIRST_STAGE, GROWTH = 32, 4
"""Number of tokens that are generated before stop strings are searched, and the factor to the number of the next stage."""

_OF_SAMPLING = frozenset({"temperature", "top_p", "top_k", "min_p", "typical_p"})
"""Generation settings that have no effect on greedy decoding."""


def harness_model(
    model: HookedModel,
    *interventions: Intervention,
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
) -> Any:
    """Make a model for ``lm_eval.simple_evaluate(model=...)`` that answers under any number of interventions.

    Generation is greedy; a task that samples is refused. Contexts that are too long lose their beginning, as in the harness.
    The harness' cache of answers (``use_cache=``) does not record interventions: use one file for each setting.

    Args:
        model: any hooked model.
        interventions: ``add(vector)``, ``follow(...)`` for full replacement, or any other, applied in the order of the
            arguments. A strength for each text is not possible, because a task's texts are not known in advance.
        batch_size: maximum number of texts in a batch.
        progress: show a bar while generating, when it takes longer than two seconds.

    Returns:
        An ``lm_eval.api.model.TemplateLM``.

    Raises:
        ValueError: for an intervention of another model or at an unknown site, or an empty batch.
        ImportError: if lm-eval is not installed.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: read at least one text at a time")
    adapter = _adapter()
    generate(model, [], *interventions, max_new_tokens=1)  # refuses what does not fit before any work
    return adapter(model, interventions, batch_size, progress)


def require_lm_eval() -> Any:
    """Import lm-eval, which is an optional dependency."""
    return require("lm_eval", "capability", "a task of the harness")


@cache
def _adapter() -> Any:
    """The class, which inherits from one of the optional dependency."""
    require_lm_eval()
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    class HarnessModel(TemplateLM):
        """See ``harness_model``."""

        def __init__(self, model: Any, interventions: tuple[Intervention, ...], batch_size: int, progress: bool) -> None:
            super().__init__()
            self.hooked, self.interventions = model, interventions
            self.batch_size, self.max_length, self.progress = batch_size, context_length(model), progress
            self.tokenizer = tokenizer_of(model)
            self._device = device_of(model)

        @property
        def eot_token_id(self) -> int:
            """The token that ends a text."""
            return self.tokenizer.eos_token_id

        @property
        def prefix_token_id(self) -> int:
            """The context of a text without one: the BOS, or the end token where there is none."""
            first = self.tokenizer.bos_token_id
            return self.eot_token_id if first is None else first

        @property
        def tokenizer_name(self) -> str:
            """Key of the harness' cache of requests."""
            return f"{identity(self.hooked).name}__{tokenizer_fingerprint(self.hooked)}".replace("/", "__")

        def get_model_info(self) -> dict[str, Any]:
            """Facts that the harness reports with its results."""
            known = identity(self.hooked)
            return {
                "model_name": known.name,
                "fingerprint": known.fingerprint,
                "interventions": [str(one) for one in self.interventions],
            }

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            """Render messages by the tokenizer's template."""
            if not self.tokenizer.chat_template:
                raise ValueError(f"the tokenizer of {identity(self.hooked).name} has no chat template: leave it out")
            return self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            """Token ids, with the special tokens that the tokenizer adds by default unless ``add_special_tokens`` is set."""
            if add_special_tokens is not None:
                return list(self.tokenizer(string, add_special_tokens=add_special_tokens, verbose=False)["input_ids"])
            return tokenize(self.hooked, [string], any_length=True)[0] if string else []

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
            likelihoods = continuations(
                self.hooked,
                [(context, continuation) for _, context, continuation in requests],
                *self.interventions,
                batch_size=self.batch_size,
            )
            for (texts, _, _), answer in zip(requests, likelihoods, strict=True):
                if texts is not None:
                    self.cache_hook.add_partial("loglikelihood", texts, answer)
            return likelihoods

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> list[float]:  # noqa: ARG002
            """Log-probability (nats) of whole texts, each token once, in windows of the maximum length."""
            windows = [
                (index, *make_disjoint_window(window))
                for index, request in enumerate(requests)
                for window in get_rolling_token_windows(
                    self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length, context_len=1
                )
            ]
            totals = [0.0] * len(requests)
            each = self._loglikelihood_tokens([(None, *window) for _, *window in windows])
            for (index, *_), (value, _) in zip(windows, each, strict=True):
                totals[index] += value
            for request, total in zip(requests, totals, strict=True):
                self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
            return totals

        def generate_until(self, requests: Any, disable_tqdm: bool = True) -> list[str]:  # noqa: ARG002
            """Greedy completions, each cut at the first of its stop strings."""
            settings = [generation_settings(request.args[1]) for request in requests]
            completions = [""] * len(requests)
            for setting in dict.fromkeys(settings):
                chosen = [i for i, one in enumerate(settings) if one == setting]
                contexts = [requests[i].args[0] for i in chosen]
                for i, text in zip(chosen, self._complete(contexts, *setting), strict=True):
                    completions[i] = text
            for request, text in zip(requests, completions, strict=True):
                self.cache_hook.add_partial("generate_until", request.args, text)
            return completions

        def _complete(self, contexts: list[str], until: tuple[str, ...], new: int) -> list[str]:
            """Generate in stages, each from the context again, because a stop string may come long before the limit."""
            room = self.max_length - new
            if room < 1:
                raise ValueError(
                    f"the task generates {new} tokens and {self.max_length} are the most this model reads: "
                    "there is no room for a context; give evaluate(..., max_new_tokens=...), or gen_kwargs to simple_evaluate"
                )
            prompts = shortened(self.hooked, contexts, room)
            completions = [""] * len(prompts)
            # A stage leaves texts out, which changes the indices of the others; transforms that read them have one stage.
            numbered = any(takes_at(i.transform) and not isinstance(i.transform, Running) for i in self.interventions)
            left, stage = list(range(len(prompts))), min(FIRST_STAGE if until and not numbered else new, new)
            while left:
                widest = max(len(ids) for ids in tokenize(self.hooked, [prompts[i] for i in left]))
                generated = generate_tokens(
                    self.hooked,
                    [prompts[i] for i in left],
                    *self.interventions,
                    max_new_tokens=stage,
                    batch_tokens=self.batch_size * (widest + stage),
                    progress=self.progress,
                )
                unfinished = []
                for i, ids in zip(left, generated, strict=True):
                    text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
                    completions[i] = before_stop(text, until)
                    if completions[i] == text and len(ids) == stage < new:
                        unfinished.append(i)
                left, stage = unfinished, min(stage * GROWTH, new)
            return completions

    return HarnessModel


@torch.no_grad()
def continuations(
    model: HookedModel,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    *interventions: Intervention,
    batch_size: int = BATCH_SIZE,
) -> list[tuple[float, bool]]:
    """Measure how likely continuations are after their contexts.

    Args:
        model: any hooked model.
        pairs: token ids of context and continuation. A pair that is too long loses tokens at its beginning.
        interventions: the context is their prompt, the continuation is generated.
        batch_size: maximum number of texts in a batch; halved when memory runs out. Pairs that differ only in their last token
            are read once.

    Returns:
        For each pair the log-probability in nats, summed over the continuation's tokens, and whether greedy decoding gives
        the continuation.

    Raises:
        ValueError: for a context or a continuation without tokens, or a continuation that does not fit.
    """
    limit = context_length(model)
    same: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for index, (context, said) in enumerate(pairs):
        if not len(context) or not 0 < len(said) <= limit:
            raise ValueError(
                f"request {index} has {len(context)} tokens of context and {len(said)} of continuation: there has to be one "
                f"of each, and the continuation may have {limit}"
            )
        read = (*context, *said)[-(limit + 1) :][:-1]  # the last token is predicted and not read
        same.setdefault((read, len(read) - len(said) + 1), []).append(index)
    rows, members = list(same), list(same.values())
    likelihoods: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
    batches = _batches([len(read) for read, _ in rows], batch_size, int(model.cfg.d_vocab))
    while batches:
        batch = batches.pop(0)
        reads = [rows[k][0] for k in batch]
        prompts = torch.tensor([rows[k][1] for k in batch])
        ends = torch.tensor([len(read) for read in reads])
        column = torch.arange(int(ends.max()))
        scored = (column >= prompts[:, None] - 1) & (column < ends[:, None])  # column t predicts token t + 1
        placed = {"prompt_lengths": prompts, "rows": torch.tensor([members[k][0] for k in batch])}
        try:
            predictions = predicted(model, reads, scored, *interventions, **placed)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or len(batch) == 1:
                raise
            batches = [batch[: len(batch) // 2], batch[len(batch) // 2 :], *batches]
            continue
        for k, part in zip(batch, predictions.split(scored.sum(dim=1).tolist()), strict=True):
            for index in members[k]:
                tokens = torch.tensor(pairs[index][1], device=part.device)
                total = float(part.gather(1, tokens[:, None]).sum())
                likelihoods[index] = (total, bool((part.argmax(dim=-1) == tokens).all()))
    return likelihoods


def generation_settings(requested: dict[str, Any]) -> tuple[tuple[str, ...], int]:
    """The stop strings and the maximum number of new tokens of a task.

    Raises:
        ValueError: for a task that samples, or unknown settings.
    """
    require_lm_eval()
    from lm_eval.models.utils import normalize_gen_kwargs

    settings: dict[str, Any] = {**normalize_gen_kwargs(requested, NEW_TOKENS)}
    if settings.pop("do_sample"):
        raise ValueError(
            f"the task samples ({requested}) and this model answers greedily: "
            "give gen_kwargs={'do_sample': False} to simple_evaluate, or take another task"
        )
    until, new = settings.pop("until"), settings.pop("max_gen_toks")
    if unknown := settings.keys() - _OF_SAMPLING:
        raise ValueError(
            f"unknown generation settings {sorted(unknown)}: there are until, max_gen_toks, max_new_tokens, max_tokens, "
            "max_completion_tokens and do_sample=False"
        )
    return tuple(stop for stop in until if stop), new


def before_stop(text: str, until: Sequence[str]) -> str:
    """Return the text before the first of some strings."""
    return text[: min([at for stop in until if (at := text.find(stop)) >= 0], default=len(text))]


def shortened(model: HookedModel, contexts: Sequence[str], room: int) -> list[str]:
    """Return contexts that lose as much of their beginning as exceeds ``room`` tokens."""
    if not contexts:
        return []
    tok, kept = tokenizer_of(model), list(contexts)
    for index, ids in enumerate(tokenize(model, contexts, any_length=True)):
        drop = max(len(ids) - room, 0)
        while len(ids) > room:  # decoded again, the rest may have more tokens, such as a new BOS
            kept[index] = tok.decode(ids[drop:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
            if len(tokenize(model, [kept[index]], any_length=True)[0]) <= room:
                break
            drop += 1
    return kept


def _batches(lengths: Sequence[int], size: int, vocabulary: int) -> list[list[int]]:
    """Batches of texts of similar length, at most ``size`` and no more logits than fit into memory."""
    groups = by_length(lengths, LOGITS_PER_BATCH // vocabulary)
    return [group[k : k + size] for group in groups for k in range(0, len(group), size)]
