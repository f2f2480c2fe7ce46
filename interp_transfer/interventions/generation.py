"""Greedy or sampled completions under interventions."""

import difflib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from interp_transfer.activations.capture import SECONDS_BEFORE_PROGRESS, out_of_memory, pad, pad_token
from interp_transfer.activations.positions import from_last
from interp_transfer.interventions.hooks import _hooked, _Reads
from interp_transfer.interventions.intervention import Intervention, _checked
from interp_transfer.interventions.transforms import Running
from interp_transfer.models.bypass import bypassed, quiet
from interp_transfer.models.hooked_model import HookedModel, context_length, device_of, huggingface_model
from interp_transfer.models.sites import hook_points
from interp_transfer.models.tokens import tokenize, tokenizer_of

TOKENS_PER_GENERATION = 32768
"""Tokens in a batch of generation, prompts and completions together."""

STEPS = 8
"""Tokens that are generated before a batch goes on without those of its texts that have ended."""


def generate(
    model: HookedModel,
    prompts: Sequence[str],
    *interventions: Intervention,
    max_new_tokens: int = 40,
    batch_tokens: int = TOKENS_PER_GENERATION,
    progress: bool = True,
    **options: Any,
) -> list[str]:
    """Completions of ``prompts`` under any number of interventions.

    Args:
        model: any hooked model.
        prompts: plain texts, tokenized as the model's own tokenizer does by default.
        interventions: applied in the order given.
        max_new_tokens: tokens to generate at most.
        batch_tokens: tokens in a batch, prompts and completions; halved by itself when memory runs out.
        progress: show a bar when it takes longer than two seconds.
        options: of transformers' ``GenerationConfig`` (``do_sample=True, temperature=0.7``); greedy without them, whatever
            the checkpoint's own generation config says. Sampling draws from torch's global generator.

    Returns:
        The completions alone, in the order of the prompts, without special tokens.

    Raises:
        ValueError: for prompts that leave no room in the context, unknown options, and what ``applied`` refuses.
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
    tok = tokenizer_of(model)
    return [tok.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False) for row in ids]


def generate_tokens(
    model: HookedModel,
    prompts: Sequence[str],
    *interventions: Intervention,
    max_new_tokens: int = 40,
    batch_tokens: int = TOKENS_PER_GENERATION,
    progress: bool = True,
    **options: Any,
) -> list[list[int]]:
    """What ``generate`` does, as token ids: each completion up to and with the token that ended it."""
    if isinstance(prompts, str):
        raise ValueError("prompts is one string: give a list of strings")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens}: generate at least one token")
    ids = tokenize(model, prompts)
    room = context_length(model) - max_new_tokens
    long = next((i for i, row in enumerate(ids) if len(row) > room), None)
    if long is not None:
        raise ValueError(
            f"prompt {long} has {len(ids[long])} tokens and {max_new_tokens} are to come, the model's context is "
            f"{context_length(model)}: shorten the prompt or max_new_tokens"
        )
    _check_options(model, options)
    for intervention in interventions:  # before any work, also when there are no prompts
        hook_points(model, _checked(model)(intervention).site, edit=True)
    completions: list[list[int]] = [[] for _ in ids]
    ends = _end_tokens(model)
    todo = _batches(model, [len(row) for row in ids], max_new_tokens, batch_tokens)
    with tqdm(
        total=len(ids), desc="generate", unit="prompt", delay=SECONDS_BEFORE_PROGRESS, disable=not progress, leave=False
    ) as bar:
        while todo:
            batch = todo.pop(0)
            try:
                made = _generate_batch(model, [ids[i] for i in batch], batch, interventions, max_new_tokens, options)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or len(batch) == 1:
                    raise
                todo = [batch[: len(batch) // 2], batch[len(batch) // 2 :], *todo]
                continue
            for index, row in zip(batch, made, strict=True):
                stop = next((k + 1 for k, token in enumerate(row) if token in ends), len(row))
                completions[index] = row[:stop]
            bar.update(len(batch))
    return completions


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
            close = difflib.get_close_matches(name, known, n=1)
            raise ValueError(f"unknown option {name!r} of generate{': did you mean ' + close[0] + '?' if close else ''}")
        if name in ("num_beams", "num_return_sequences") and options[name] not in (1, None):
            raise ValueError(f"{name}={options[name]}: generate gives one completion for each prompt, without beams")


def _batches(model: HookedModel, lengths: list[int], new: int, budget: int) -> list[list[int]]:
    """Prompts of similar length together; a HookedTransformer, whose generate takes no mask, gets equal lengths only."""
    equal = huggingface_model(model) is None
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        first = batches[-1][0] if batches else None
        if (
            first is not None
            and (len(batches[-1]) + 1) * (lengths[first] + new) <= budget
            and not (equal and lengths[first] != lengths[index])
        ):
            batches[-1].append(index)
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
    options: dict[str, Any],
) -> list[list[int]]:
    tokens, real = pad(prompts, pad_token(model), left=True)
    tokens = tokens.to(device_of(model))
    hf = huggingface_model(model)
    reads = _Reads(tokenizer_of(model), real.sum(dim=1), torch.tensor(index))
    ends = _end_tokens(model)
    if hf is None:
        given = {"do_sample": False, "verbose": False, "return_type": "tokens", "stop_at_eos": bool(ends)}
        given |= {"eos_token_id": ends or None, **options}
        with _hooked(model, interventions, reads):
            out: Any = model.generate(tokens, max_new_tokens=new, **given)
        return out[:, tokens.shape[1] :].tolist()
    plain = {"eos_token_id": ends or None, "pad_token_id": pad_token(model), "do_sample": False, **options}
    # Others who listen (hooks of the user's, a block of ``applied`` around this call) are told of whole texts and of all rows.
    free = not options and quiet(model) and _plain_cache(hf)
    with _own_generation_config_aside(hf):
        cache = None
        if free and all(from_last(i.positions) for i in interventions):
            with bypassed(model):
                cache = _shared_prefix(hf, prompts, tokens, real)
        with _hooked(model, interventions, reads), bypassed(model):
            if cache is not None:
                reads.begin(tokens[:, :-1], real[:, :-1].to(tokens.device))
            held = any(isinstance(i.transform, Running) for i in interventions)  # what they keep has a place for every row
            steps = STEPS if free and not held else new
            return _continue(hf, reads, tokens, real.to(tokens.device), cache, new, steps, plain)


def _continue(
    hf: Any, reads: _Reads, tokens: Tensor, real: Tensor, cache: Any, new: int, steps: int, options: dict[str, Any]
) -> list[list[int]]:
    """Generate some steps at a time, and go on without the rows that are done once they are a quarter."""
    width, ends = tokens.shape[1], torch.tensor(options["eos_token_id"] or [], device=tokens.device)
    made: list[list[int]] = [[] for _ in tokens]
    rows = torch.arange(len(tokens), device=tokens.device)
    # The mask is given even where nothing is padded: transformers would take a pad token inside a prompt for padding.
    mask = real.long()
    while True:
        step = min(steps, new - tokens.shape[1] + width)
        out = hf.generate(
            tokens,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=step,
            return_dict_in_generate=True,
            **options,
        )
        tokens, cache = out.sequences, getattr(out, "past_key_values", None)
        mask = torch.cat([mask, mask.new_ones(len(mask), tokens.shape[1] - mask.shape[1])], dim=1)
        done = torch.isin(tokens[:, width:], ends).any(dim=1)
        if done.all() or tokens.shape[1] - width >= new or steps >= new:
            for row, said in zip(rows.tolist(), tokens[:, width:].tolist(), strict=True):
                made[row] = said
            return made
        if done.float().mean() >= 1 / 4:
            for row, said in zip(rows[done].tolist(), tokens[done, width:].tolist(), strict=True):
                made[row] = said
            left = (~done).nonzero()[:, 0]
            tokens, mask, rows = tokens[left], mask[left], rows[left]
            cache.batch_select_indices(left.cpu())  # a cache may lie on several devices, and an index on the CPU does for each
            reads.keep(left)


def _shared_prefix(hf: Any, prompts: list[list[int]], tokens: Tensor, real: Tensor) -> Any:
    """The cache of all but each prompt's last token, read once for prompts that are the same; None if few are."""
    first: dict[tuple[int, ...], int] = {}
    same = [first.setdefault(tuple(prompt), len(first)) for prompt in prompts]
    if 2 * len(first) > len(prompts) or tokens.shape[1] < 2:
        return None
    chosen = torch.tensor([same.index(k) for k in range(len(first))])
    mask = real[chosen, :-1].long().to(tokens.device)
    place = (mask.cumsum(dim=1) - 1).clamp(min=0)
    out = hf(tokens[chosen, :-1], attention_mask=mask, position_ids=place, use_cache=True, logits_to_keep=1)
    out.past_key_values.batch_select_indices(torch.tensor(same))
    return out.past_key_values


def _plain_cache(hf: Any) -> bool:
    """Whether what a model keeps between steps is keys and values alone, from which rows can be taken."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    if not hf._supports_default_dynamic_cache():
        return False
    layers = DynamicCache(config=hf.config).layers
    return len(layers) > 0 and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


@contextmanager
def _own_generation_config_aside(hf: Any) -> Iterator[None]:
    """Without a checkpoint's own sampling, penalties and forced tokens, which transformers would mix into any call."""
    from transformers import GenerationConfig

    own = hf.generation_config
    hf.generation_config = GenerationConfig()
    try:
        yield
    finally:
        hf.generation_config = own


def _end_tokens(model: HookedModel) -> list[int]:
    """The tokens that end a completion: what the checkpoint's generation config names, else the tokenizer's."""
    hf = huggingface_model(model)
    named = hf.generation_config.eos_token_id if hf is not None and hf.generation_config is not None else None
    named = tokenizer_of(model).eos_token_id if named is None else named
    return [] if named is None else [named] if isinstance(named, int) else list(named)
