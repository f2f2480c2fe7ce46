"""Generate completions under interventions, in batches of similar length.

Completions are those of transformers' ``generate``, computed faster in three ways that change no token but by rounding, which
is seen in 16 bits: wrappers without hooks are bypassed; what the prompts of a batch share is read once (``read_ahead``); and a
batch drops the rows that have ended.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp_transfer.activations.capture import out_of_memory, pad, pad_token
from interp_transfer.activations.finite import all_finite
from interp_transfer.activations.positions import Substring
from interp_transfer.interventions.hooks import TokensRead, attached, in_use
from interp_transfer.interventions.intervention import Intervention, check_intervention
from interp_transfer.interventions.read_ahead import has_plain_cache, read_prompts
from interp_transfer.interventions.transforms import Running
from interp_transfer.models.bypass import bypassed, has_no_hooks
from interp_transfer.models.exclusive import exclusive
from interp_transfer.models.hooked_model import HookedModel, context_length, device_of, huggingface_model
from interp_transfer.models.sites import hook_points
from interp_transfer.models.tokens import tokenize, tokenizer_of
from interp_transfer.names import did_you_mean
from interp_transfer.progress import progress_bar
from interp_transfer.prompts.chats import PromptLike

TOKENS_PER_GENERATION = 16384
"""Tokens in a batch of generation, prompts and completions together."""

FULL_ROWS = 64
"""Rows of a batch of generation that takes no prompt which would need a quarter of padding."""

STEPS = 8
"""Tokens that are generated before a batch drops the rows that have ended."""

DROP_SHARE = 1 / 4
"""Share of a batch's rows that must have ended before they are dropped."""


def generate(
    model: HookedModel,
    prompts: Sequence[PromptLike],
    *interventions: Intervention,
    max_new_tokens: int = 40,
    batch_tokens: int = TOKENS_PER_GENERATION,
    progress: bool = True,
    **options: Any,
) -> list[str]:
    """Return completions of ``prompts`` under any number of interventions.

    Args:
        model: any hooked model.
        prompts: texts or chats, see ``models.tokens.tokenize``.
        interventions: applied in the order of the arguments.
        max_new_tokens: maximum number of generated tokens.
        batch_tokens: tokens in a batch, prompts and completions; halved automatically when memory runs out.
        progress: show a bar when it takes longer than two seconds.
        options: of transformers' ``GenerationConfig`` (``do_sample=True, temperature=0.7``); greedy without them, whatever
            the checkpoint's own generation config sets. Sampling draws from torch's global generator.

    Returns:
        The completions alone, in the order of the prompts, without special tokens.

    Raises:
        ValueError: for prompts that leave no room in the context, unknown options, and whatever ``applied`` refuses.
    """
    ids = generate_tokens(
        model,
        prompts,
        *interventions,
        max_new_tokens=max_new_tokens,
        batch_tokens=batch_tokens,
        progress=progress,
        **options,
    )
    tokenizer = tokenizer_of(model)
    return [tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False) for row in ids]


def generate_tokens(
    model: HookedModel,
    prompts: Sequence[PromptLike],
    *interventions: Intervention,
    max_new_tokens: int = 40,
    batch_tokens: int = TOKENS_PER_GENERATION,
    progress: bool = True,
    **options: Any,
) -> list[list[int]]:
    """Return completions as token ids, see ``generate``; each includes the token that ended it."""
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens}: generate at least one token")
    ids = tokenize(model, prompts)
    check_room(model, ids, max_new_tokens)
    _check_options(model, options)
    if "stop_strings" in options:
        options = {**options, "tokenizer": tokenizer_of(model)}
    check_interventions(model, interventions, ids)
    completions: list[list[int]] = [[] for _ in ids]
    ends = end_tokens(model, options.pop("eos_token_id", None))
    batches = _batches(model, [len(row) for row in ids], max_new_tokens, batch_tokens)
    with progress_bar("generate", progress, total=len(ids), unit="prompt") as bar:
        while batches:
            batch = batches.pop(0)
            try:
                with in_use(model, interventions), exclusive(model):
                    generated = _generate_batch(
                        model, [ids[i] for i in batch], batch, interventions, max_new_tokens, ends, options
                    )
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or len(batch) == 1:
                    raise
                batches = [batch[: len(batch) // 2], batch[len(batch) // 2 :], *batches]
                continue
            for index, row in zip(batch, generated, strict=True):
                stop = next((k + 1 for k, token in enumerate(row) if token in ends), len(row))
                while "stop_strings" in options and stop and row[stop - 1] == pad_token(model):
                    stop -= 1  # transformers pads a row that a stop string has ended
                completions[index] = row[:stop]
            bar.update(len(batch))
    return completions


def check_room(model: HookedModel, ids: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Refuse prompts that leave no room in the context for the tokens to come, naming the first."""
    room = context_length(model) - max_new_tokens
    long = next((i for i, row in enumerate(ids) if len(row) > room), None)
    if long is not None:
        raise ValueError(
            f"prompt {long} has {len(ids[long])} tokens and {max_new_tokens} are to come, the model's context is "
            f"{context_length(model)}: shorten the prompt or max_new_tokens"
        )


def check_interventions(model: HookedModel, interventions: Sequence[Intervention], ids: list[list[int]]) -> None:
    """Refuse what ``applied`` would refuse, before any work and also when there are no prompts; ``ids`` are the prompts."""
    for intervention in interventions:
        hook_points(model, check_intervention(model, intervention).site, edit=True)
        if isinstance(intervention.positions, Substring):
            intervention.positions.check(ids, tokenizer_of(model))


def _check_options(model: HookedModel, options: dict[str, Any]) -> None:
    if not options:
        return
    if huggingface_model(model) is None:
        known = set(inspect.signature(model.generate).parameters)
    else:
        from transformers import GenerationConfig

        known = set(GenerationConfig().to_dict())
    for name in options:
        if name not in known:
            raise ValueError(
                f"unknown option {name!r} of generate: {did_you_mean(name, known)}see transformers' GenerationConfig"
            )
        if name == "cache_implementation" and options[name] not in ("dynamic", None):
            raise ValueError(f"{name}={options[name]!r}: generate needs a KV cache that grows; leave it out")
        if name in ("num_beams", "num_return_sequences") and options[name] not in (1, None):
            raise ValueError(f"{name}={options[name]}: generate gives one completion for each prompt, without beams")


def _batches(model: HookedModel, lengths: list[int], new: int, budget: int) -> list[list[int]]:
    """Indices of prompts of similar length; of equal length for a HookedTransformer, whose ``generate`` takes no mask."""
    equal = huggingface_model(model) is None
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        batch = batches[-1] if batches else []
        longest = lengths[batch[0]] if batch else 0
        alike = lengths[index] == longest if equal else len(batch) < FULL_ROWS or lengths[index] + new > 0.75 * (longest + new)
        if batch and alike and (len(batch) + 1) * (longest + new) <= budget:
            batch.append(index)
        else:
            batches.append([index])
    return batches


@torch.no_grad()
def _generate_batch(
    model: HookedModel,
    prompts: list[list[int]],
    index: list[int],
    interventions: Sequence[Intervention],
    new: int,
    ends: list[int],
    options: dict[str, Any],
) -> list[list[int]]:
    tokens, real = pad(prompts, pad_token(model), left=True)
    tokens = tokens.to(device_of(model))
    hf = huggingface_model(model)
    tokens_read = TokensRead(tokenizer_of(model), real.sum(dim=1), torch.tensor(index))
    if hf is None:
        settings = {"do_sample": False, "verbose": False, "return_type": "tokens", "stop_at_eos": bool(ends)}
        with attached(model, interventions, tokens_read):
            out: Any = model.generate(tokens, max_new_tokens=new, **{**settings, "eos_token_id": ends or None, **options})
        return out[:, tokens.shape[1] :].tolist()
    settings = {"eos_token_id": ends or None, "pad_token_id": pad_token(model), "do_sample": False, **options}
    # Hooks of the user's, and an ``applied`` block around this call, have to see whole prompts and all rows.
    may_skip = not options and has_no_hooks(model) and has_plain_cache(hf)
    with default_generation_config(hf):
        real = real.to(tokens.device)
        cache = None
        if may_skip and tokens.shape[1] > 1:
            cache = read_prompts(model, prompts, tokens, real, interventions, torch.tensor(index))
        with attached(model, interventions, tokens_read), bypassed(model):
            if cache is not None:
                tokens_read.begin(tokens[:, :-1], real[:, :-1])
            stateful = any(isinstance(i.transform, Running) for i in interventions)  # their state has an entry for every row
            steps = STEPS if may_skip and not stateful else new
            return _generate_in_steps(hf, tokens_read, tokens, real, cache, new, steps, settings, index)


def _generate_in_steps(
    hf: Any,
    tokens_read: TokensRead,
    tokens: Int[Tensor, "row column"],
    real: Bool[Tensor, "row column"],
    cache: Any,
    new: int,
    steps: int,
    settings: dict[str, Any],
    index: list[int],
) -> list[list[int]]:
    """Generate ``steps`` tokens at a time, and drop the rows that have ended once they are ``DROP_SHARE`` of the batch."""
    width, ends = tokens.shape[1], torch.tensor(settings["eos_token_id"] or [], device=tokens.device)
    generated: list[list[int]] = [[] for _ in tokens]
    rows = torch.arange(len(tokens), device=tokens.device)
    # The mask is passed even where nothing is padded: transformers would take a pad token inside a prompt for padding.
    mask = real.long()
    while True:
        out = hf.generate(
            tokens,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=min(steps, new - tokens.shape[1] + width),
            return_dict_in_generate=True,
            logits_processor=[Finite([index[row] for row in rows.tolist()])],
            **settings,
        )
        tokens, cache = out.sequences, getattr(out, "past_key_values", None)
        mask = torch.cat([mask, mask.new_ones(len(mask), tokens.shape[1] - mask.shape[1])], dim=1)
        ended = torch.isin(tokens[:, width:], ends).any(dim=1)
        last = bool(ended.all()) or tokens.shape[1] - width >= new or steps >= new
        if last or ended.float().mean() >= DROP_SHARE:
            finished = torch.ones_like(ended) if last else ended
            for row, completion in zip(rows[finished].tolist(), tokens[finished, width:].tolist(), strict=True):
                generated[row] = completion
            if last:
                return generated
            left = (~ended).nonzero()[:, 0]
            tokens, mask, rows = tokens[left], mask[left], rows[left]
            cache.batch_select_indices(left.cpu())  # layers of the cache may be on several devices; a CPU index suits them all
            tokens_read.keep(left)


@dataclass(frozen=True)
class Finite:
    """Refuses logits that hold NaN or infinity, from which transformers would take any token; fields: the rows' prompts."""

    index: list[int]

    def __call__(self, _: Tensor, scores: Float[Tensor, "row vocabulary"]) -> Float[Tensor, "row vocabulary"]:
        """Return the scores as they are."""
        highest = scores.amax(dim=-1)
        if not all_finite(highest):
            prompt = self.index[int((~torch.isfinite(highest)).nonzero()[0, 0])]
            raise ValueError(f"the model's logits are NaN or infinite at prompt {prompt}: load it with dtype='float32'")
        return scores


@contextmanager
def default_generation_config(hf: Any) -> Iterator[None]:
    """Without the checkpoint's own sampling, penalties and forced tokens, which transformers would apply to every call."""
    from transformers import GenerationConfig

    own = hf.generation_config
    hf.generation_config = GenerationConfig()
    try:
        yield
    finally:
        hf.generation_config = own


def end_tokens(model: HookedModel, named: int | list[int] | None = None) -> list[int]:
    """The tokens that end a completion: those named, else those of the checkpoint's generation config or the tokenizer's."""
    hf = huggingface_model(model)
    if named is None and hf is not None and hf.generation_config is not None:
        named = hf.generation_config.eos_token_id
    named = tokenizer_of(model).eos_token_id if named is None else named
    return [] if named is None else [named] if isinstance(named, int) else list(named)
