"""Interventions: a transform at a site and at positions, and the one context manager that puts them into a model.

``applied(model, *interventions)`` watches the model's forward calls to know which tokens each one reads: a call without a KV
cache starts a new text and is all prompt, a call with one continues. So rules of positions mean the same in a plain forward
pass, in batched generation with left padding, and in any loop of the user's own. Hooks never edit in place, and are gone
when the block ends, however it ends. A hook that never fired is an error: the intervention did nothing.
"""

import difflib
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from tqdm.auto import tqdm

from interp_transfer.activations.capture import SECONDS_BEFORE_PROGRESS, hooked, out_of_memory, pad, pad_token
from interp_transfer.activations.positions import Layout, Positions, check_positions, describe, from_last, select
from interp_transfer.interventions.transforms import Ablate, Add, At, Clamp, Running, Strength, Transform, When, takes_at
from interp_transfer.models.bypass import bypassed, quiet
from interp_transfer.models.load import (
    ModelIdentity,
    context_length,
    device_of,
    huggingface_model,
    identity,
    tokenize,
    tokenizer_of,
)
from interp_transfer.models.sites import RESIDUAL_WRITES, HookedModel, hook_points
from interp_transfer.vectors.vector import SteeringVector

TOKENS_PER_GENERATION = 32768
"""Tokens in a batch of generation, prompts and completions together."""

STEPS = 8
"""Tokens that are generated before a batch goes on without those of its texts that have ended."""


class HookNeverFired(RuntimeError):
    """An intervention's site was never computed, so the intervention did nothing."""


@dataclass(frozen=True)
class Intervention:
    """Do ``transform`` to the activations at ``site`` of the tokens at ``positions``.

    Attributes:
        site: hook-point name, or several; ``*`` stands for every block.
        transform: called with the selected rows, ``transform(a)`` or ``transform(a, at)``; returns rows of the same shape.
        positions: which tokens, see ``activations.positions``.
        model: the model that it is meant for, if it is meant for one; others refuse it.
    """

    site: str | tuple[str, ...]
    transform: Transform
    positions: Positions = "all"
    model: ModelIdentity | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not callable(self.transform):
            raise ValueError(f"transform is a {type(self.transform).__name__}, not callable: give a function of the rows")
        check_positions(self.positions)

    def at(self, positions: Positions) -> "Intervention":
        """The same intervention at other positions."""
        return replace(self, positions=positions)

    def when(self, condition: "Callable[[Tensor], Tensor] | SteeringVector", above: float = 0.0) -> "Intervention":
        """The same only on rows whose score is above a threshold.

        Args:
            condition: rows ``Float[Tensor, "n d_model"]`` to scores ``Float[Tensor, " n"]``; a probe of the same site; or a
                vector, whose score is the dot product with its direction.
            above: the threshold.

        Raises:
            ValueError: for a probe or vector of another site or model, or a transform that keeps something from step to step
                (``follow``).
        """
        site, model = getattr(condition, "site", self.site), getattr(condition, "model", None)
        if site != self.site or (model is not None and self.model is not None and model.fingerprint != self.model.fingerprint):
            raise ValueError(f"the condition {condition!r} is of another site or model than {self}: it would score other rows")
        if isinstance(condition, SteeringVector):
            direction = condition.direction.float()
            condition = lambda a: a.float() @ direction.to(a.device)  # noqa: E731
        if isinstance(self.transform, Running):
            raise ValueError(f"{type(self.transform).__name__} reads along at every step: it cannot be left out at some rows")
        return replace(self, transform=When(condition, self.transform, above))

    def __str__(self) -> str:
        site = self.site if isinstance(self.site, str) else " + ".join(self.site)
        return f"{type(self.transform).__name__} at {site}, positions {describe(self.positions)}"


def add(vector: SteeringVector, strength: Strength = 1.0, positions: Positions = "all") -> Intervention:
    """Add ``strength`` times the vector at its site; strength 1.0 is the contrast's own difference.

    ``strength`` may hold one number for each text, ``Float[Tensor, " text"]``.
    """
    return Intervention(vector.site, Add(vector.direction, strength), positions, model=vector.model)


def ablate(vector: SteeringVector, positions: Positions = "all", *, everywhere: bool = False) -> Intervention:
    """Remove the component along the vector (directional ablation, Arditi et al. 2024).

    Args:
        vector: its direction is what is removed; its length does not matter.
        positions: which tokens.
        everywhere: at every block's input, attention output and MLP output, and not at the vector's site alone.
    """
    site = RESIDUAL_WRITES if everywhere else vector.site
    return Intervention(site, Ablate(vector.direction), positions, model=vector.model)


def clamp(vector: SteeringVector, value: Strength, positions: Positions = "all") -> Intervention:
    """Set the component along the vector's unit direction to ``value``, in units of the activation."""
    return Intervention(vector.site, Clamp(vector.direction, value), positions, model=vector.model)


@contextmanager
def applied(
    model: HookedModel,
    *interventions: Intervention,
    prompt_lengths: Int[Tensor, " row"] | None = None,
    rows: Int[Tensor, " row"] | None = None,
) -> Iterator[None]:
    """Apply interventions to every call of the model inside the block, in the order given.

    Args:
        model: any hooked model; its ``generate``, ``run_with_cache``, ``forward`` and plain calls all count.
        interventions: what to do.
        prompt_lengths: for forward passes over prompt and completion at once (teacher forcing): how many real tokens of
            each row are its prompt. Without it, a pass without a KV cache is all prompt.
        rows: which text each row is, for transforms that look at ``at.row``; 0, 1, ... if not given.

    Raises:
        ValueError: before anything runs, for an unknown site, a vector of another model, positions that make no sense.
        HookNeverFired: on the way out, if a site was never reached.
    """
    reads = _Reads(tokenizer_of(model) if model.tokenizer is not None else None, prompt_lengths, rows)
    with _hooked(model, interventions, reads):
        yield


@contextmanager
def _hooked(model: HookedModel, interventions: Sequence[Intervention], reads: "_Reads") -> Iterator[None]:
    """See ``applied``."""
    checked = list(map(_checked(model), interventions))
    planned = [(site, point, k) for k, i in enumerate(checked) for site, point in hook_points(model, i.site, edit=True).items()]
    watched = _watched_bridge if huggingface_model(model) is not None else _watched_transformer
    with ExitStack() as stack:
        live = [stack.enter_context(_running(model, i)) for i in checked]
        stack.enter_context(watched(model, reads))
        for site, point, k in planned:
            stack.enter_context(hooked(point, _edit(site, live[k], reads)))
        yield
    missed = [site for site, _, _ in planned if site not in reads.fired]
    if missed:
        why = "no forward pass of this model ran inside the block" if reads.layout is None else "no forward pass reached it"
        raise HookNeverFired(
            f"hook {missed[0]!r} never fired, so the intervention did nothing: {why} "
            "(a pass may have stopped before it, or a use_... switch of the model may be off)"
        )


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


@dataclass
class _Reads:
    """What the model has read inside one ``applied`` block; the only state that hooks share."""

    tokenizer: Any
    prompt_lengths: Tensor | None
    rows: Tensor | None
    layout: Layout | None = None
    new: int = 0
    fired: set[str] = field(default_factory=set)
    chosen: dict[int, tuple[str, tuple[Tensor, Tensor] | None]] = field(default_factory=dict)

    def begin(self, tokens: Tensor, real: Tensor) -> None:
        """Note tokens that were read before the block began; more of the prompts may be to come."""
        assert self.prompt_lengths is not None
        self.layout = replace(self._start(tokens, real), prompt_lengths=self.prompt_lengths.to(tokens.device))

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the rows."""
        before = self.layout
        assert before is not None
        parts = {name: getattr(before, name)[rows] for name in ("tokens", "real", "prompt_lengths", "rows")}
        self.layout = replace(before, **parts)

    def read(self, tokens: Tensor, mask: Tensor | None, past: int) -> None:
        """Note one forward call: ``past`` columns are in the KV cache, ``tokens`` come after them."""
        self.chosen.clear()
        self.new = tokens.shape[1]
        before = self.layout
        if past and (before is None or before.tokens.shape != (len(tokens), past)):
            # The cache was filled outside this block: what it holds is a prompt whose tokens are not known.
            before = self._start(torch.full((len(tokens), past), -1, device=tokens.device), _columns(mask, tokens, past, past))
        if not past or before is None:
            self.layout = self._start(tokens, _columns(mask, tokens, 0, self.new))
            return
        self.layout = replace(
            before,
            tokens=torch.cat([before.tokens, tokens], dim=1),
            real=torch.cat([before.real, _columns(mask, tokens, past, past + self.new)[:, past:]], dim=1),
        )

    def _start(self, tokens: Tensor, real: Tensor) -> Layout:
        lengths = real.sum(dim=1)
        given = self.prompt_lengths
        if given is not None:
            if len(given) != len(tokens):
                raise ValueError(f"{len(given)} prompt lengths for {len(tokens)} rows: give one for each row")
            lengths = torch.minimum(given.to(lengths), lengths)
        rows = self.rows if self.rows is not None else torch.arange(len(tokens))
        if len(rows) != len(tokens):
            raise ValueError(f"{len(rows)} row numbers for {len(tokens)} rows: give one for each row")
        return Layout(tokens, real, lengths, rows.to(tokens.device), self.tokenizer)

    def selected(self, intervention: Intervention) -> tuple[str, tuple[Tensor, Tensor] | None]:
        """("none" | "every" | "some", index of the rows among the new columns), worked out once a forward call."""
        key = id(intervention)
        if key not in self.chosen:
            assert self.layout is not None
            mask: Bool[Tensor, "row column"] = select(intervention.positions, self.layout)[:, -self.new :]
            row, column = mask.nonzero(as_tuple=True)
            which = "none" if not len(row) else "every" if len(row) == mask.numel() else "some"
            self.chosen[key] = (which, (row, column))
        return self.chosen[key]


def _columns(mask: Tensor | None, tokens: Tensor, past: int, total: int) -> Bool[Tensor, "row column"]:
    """The real columns among the first ``total`` (or more); all of them where there is no mask."""
    if mask is None:
        return torch.ones(len(tokens), total, dtype=torch.bool, device=tokens.device)
    if mask.ndim != 2:
        raise ValueError(f"attention_mask has shape {tuple(mask.shape)}: interventions need the (row, token) mask")
    if mask.shape[1] == tokens.shape[1] and past:
        mask = torch.cat([mask.new_ones(len(mask), past), mask], dim=1)
    return mask[:, :total].to(tokens.device).bool()


@contextmanager
def _watched_bridge(model: HookedModel, reads: _Reads) -> Iterator[None]:
    """Tell ``reads`` of every forward call of the transformers model inside a bridge."""

    def note(module: nn.Module, args: tuple, kwargs: dict) -> None:  # noqa: ARG001 - torch passes the module
        tokens = kwargs.get("input_ids", args[0] if args else None)
        if tokens is None:
            embeds = kwargs["inputs_embeds"]
            tokens = torch.full(embeds.shape[:2], -1, device=embeds.device)
        cache = kwargs.get("past_key_values")
        past = int(cache.get_seq_length()) if cache is not None else 0
        reads.read(tokens, kwargs.get("attention_mask"), past)

    handle = huggingface_model(model).register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _watched_transformer(model: Any, reads: _Reads) -> Iterator[None]:
    """The same for a ``HookedTransformer``.

    Its ``generate`` calls ``forward`` past PyTorch's hooks, and with embeddings in place of tokens. So ``forward`` itself is
    shadowed, and the embedding is watched for the tokens.
    """
    embedded: list[Tensor] = []
    signature = inspect.signature(type(model).forward)
    before, inner = model.__dict__.get("forward"), model.forward

    def embed(module: nn.Module, args: tuple) -> None:  # noqa: ARG001 - torch passes the module
        if embedded and len(embedded[0]) != len(args[0]):
            embedded.clear()
        embedded.append(args[0])

    def forward(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(model, *args, **kwargs).arguments
        tokens, mask, cache = given["input"], given.get("attention_mask"), given.get("past_kv_cache")
        past = int(cache[0].past_keys.shape[1]) if cache is not None else 0
        options = {k: given[k] for k in ("prepend_bos", "padding_side") if k in given}
        if isinstance(tokens, str | list):
            tokens = model.to_tokens(tokens, **options)
        elif tokens.is_floating_point():
            known = torch.cat(embedded, dim=1)[:, -tokens.shape[1] :] if embedded else tokens.new_empty(0, 0)
            same = known.shape == tokens.shape[:2]
            tokens = known if same else torch.full(tokens.shape[:2], -1, device=tokens.device)
        tokens = tokens[None] if tokens.ndim == 1 else tokens
        side = options.get("padding_side", getattr(model.tokenizer, "padding_side", None))
        if mask is None and not past and side == "left":
            from transformer_lens.utilities.tokenize_utils import get_attention_mask

            mask = get_attention_mask(model.tokenizer, tokens, bool(model.cfg.default_prepend_bos))
        reads.read(tokens, mask, past)
        return inner(*args, **kwargs)

    handle = model.embed.register_forward_pre_hook(embed)
    model.forward = forward
    try:
        yield
    finally:
        handle.remove()
        if before is None:
            del model.forward
        else:
            model.forward = before


@contextmanager
def _running(model: HookedModel, intervention: Intervention) -> Iterator[Intervention]:
    """The intervention with its transform started, if that is one that keeps something from step to step."""
    transform = intervention.transform
    with transform.running(model) if isinstance(transform, Running) else nullcontext(transform) as live:
        yield intervention if live is transform else replace(intervention, transform=live)


def _edit(site: str, intervention: Intervention, reads: _Reads) -> Any:
    with_at = takes_at(intervention.transform)

    def hook(tensor: Tensor, hook: Any) -> Tensor | None:  # noqa: ARG001 - transformer-lens passes it by name
        reads.fired.add(site)
        which, index = reads.selected(intervention)
        if which == "none" or index is None or reads.layout is None:
            return None
        if tensor.shape[:2] != (len(reads.layout.tokens), reads.new):
            raise ValueError(f"{site!r} has shape {tuple(tensor.shape)}, not (text, token, ...): it cannot be edited by token")
        if which == "every":
            rows = tensor.reshape(tensor.shape[0] * tensor.shape[1], -1)
        else:
            index = (index[0].to(tensor.device), index[1].to(tensor.device))
            rows = tensor[index].flatten(1)
        at = At(reads.layout, (index[0], index[1] + reads.layout.tokens.shape[1] - reads.new))
        new = intervention.transform(rows, at) if with_at else intervention.transform(rows)
        if not isinstance(new, Tensor) or new.shape != rows.shape:
            got = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise ValueError(f"the transform at {site!r} returned {got} for rows of shape {tuple(rows.shape)}: keep the shape")
        new = new.to(tensor.dtype)
        if which == "every":
            return new.reshape(tensor.shape)
        out = tensor.clone()
        out[index] = new.reshape(-1, *tensor.shape[2:])
        return out

    return hook


def _checked(model: HookedModel) -> Any:
    def check(intervention: Any) -> Intervention:
        if not isinstance(intervention, Intervention):
            raise ValueError(
                f"not an intervention but a {type(intervention).__name__}: make one with add(vector, strength), "
                "ablate(vector), clamp(vector, value) or Intervention(site, transform, positions)"
            )
        here = identity(model)
        if intervention.model is not None and intervention.model.fingerprint != here.fingerprint:
            raise ValueError(
                f"this intervention was made for {intervention.model}, not for {here}: move its vector with "
                "mapper.transfer(vector), or rebind it on purpose with vector.for_model(model)"
            )
        return intervention

    return check


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
