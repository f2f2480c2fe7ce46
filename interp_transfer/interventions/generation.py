"""Generate completions under interventions, in batches of similar length.

Completions are those of transformers' ``generate``, computed faster in three ways that change no token: wrappers without hooks
are bypassed; prompts that occur several times in a batch are read once, as far as interventions leave them unchanged (all but
the last token, or the blocks before the first site); and a batch drops the rows that have ended.
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
from interp_transfer.activations.positions import Substring, from_last
from interp_transfer.interventions.hooks import TokensRead, attached, in_use
from interp_transfer.interventions.intervention import Intervention, check_intervention
from interp_transfer.interventions.predictions import first_block
from interp_transfer.interventions.transforms import Add, Running, takes_at
from interp_transfer.models.blocks import recording, starting_at
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
        cache = below = None
        repeated = _repeated(prompts) if may_skip and tokens.shape[1] > 1 else None
        if repeated is not None:
            with bypassed(model):
                if all(from_last(i.positions) for i in interventions):
                    cache = _read_once(hf, tokens, real, repeated)
                elif all(map(_same_everywhere, interventions)):
                    below = _read_below(model, tokens, real, repeated, first_block(model, [interventions]))
        with attached(model, interventions, tokens_read), bypassed(model):
            if cache is not None:
                tokens_read.begin(tokens[:, :-1], real[:, :-1])
            if below is not None:
                cache = _read_above(model, tokens, real, below)
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


@dataclass(frozen=True)
class _Repeated:
    """Prompts that occur several times in a batch.

    Attributes:
        chosen: a row of each distinct prompt.
        distinct: for each row, which of the distinct prompts it is.
    """

    chosen: Int[Tensor, " prompt"]
    distinct: Int[Tensor, " row"]


@dataclass(frozen=True)
class _Below:
    """What the blocks before the first site compute for the prompts of a batch, all but the last token.

    Attributes:
        first: the first block that an intervention changes.
        output: what the block before it returns, for each row.
        cache: their keys and values, for each row.
    """

    first: int
    output: Tensor
    cache: Any


def _repeated(prompts: list[list[int]]) -> _Repeated | None:
    """The prompts that are repeated; None if few are."""
    first: dict[tuple[int, ...], int] = {}
    distinct = [first.setdefault(tuple(prompt), len(first)) for prompt in prompts]
    if 2 * len(first) > len(prompts):
        return None
    return _Repeated(torch.tensor([distinct.index(k) for k in range(len(first))]), torch.tensor(distinct))


def _read(hf: Any, tokens: Tensor, real: Tensor) -> Any:
    """Read all but the last token of each row."""
    mask = real[:, :-1].long()
    position = (mask.cumsum(dim=1) - 1).clamp(min=0)
    return hf(tokens[:, :-1], attention_mask=mask, position_ids=position, use_cache=True, logits_to_keep=1)


def _read_once(hf: Any, tokens: Tensor, real: Tensor, repeated: _Repeated) -> Any:
    """The KV cache of all but each prompt's last token, every distinct prompt read once."""
    cache = _read(hf, tokens[repeated.chosen], real[repeated.chosen]).past_key_values
    cache.batch_select_indices(repeated.distinct)
    return cache


def _same_everywhere(intervention: Intervention) -> bool:
    """Whether an intervention does the same to every token of a row, wherever it is and whatever came before."""
    transform, where = intervention.transform, intervention.positions
    plain = isinstance(transform, Add) or not (isinstance(transform, Running) or takes_at(transform))
    return plain and isinstance(where, str) and where == "all"


def _read_below(model: HookedModel, tokens: Tensor, real: Tensor, repeated: _Repeated, first: int) -> _Below | None:
    """What blocks before ``first`` compute; None if later blocks read more of them than the output of the last."""
    if not first:
        return None
    hf, rows = huggingface_model(model), (tokens[repeated.chosen], real[repeated.chosen])
    with recording(model, first) as outputs:
        whole = _read(hf, *rows)
    if not isinstance(outputs[0], Tensor):
        return None
    with starting_at(model, first, outputs[0]):
        rest = _read(hf, *rows)
    if not torch.allclose(whole.logits, rest.logits, rtol=1e-3, atol=1e-3):
        return None
    cache = whole.past_key_values
    del cache.layers[first:]
    cache.batch_select_indices(repeated.distinct)
    return _Below(first, outputs[0][repeated.distinct.to(outputs[0].device)], cache)


def _read_above(model: HookedModel, tokens: Tensor, real: Tensor, below: _Below) -> Any:
    """The KV cache of all but each prompt's last token, with the interventions that are attached."""
    with starting_at(model, below.first, below.output):
        cache = _read(huggingface_model(model), tokens, real).past_key_values
    cache.layers[: below.first] = below.cache.layers
    return cache


def has_plain_cache(hf: Any) -> bool:
    """Whether a model's cache holds keys and values alone, from which rows can be selected."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    if not hf._supports_default_dynamic_cache():
        return False
    layers = DynamicCache(config=hf.config).layers
    return len(layers) > 0 and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


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
