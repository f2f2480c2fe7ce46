"""The context manager that puts interventions into a model: the one place where hooks edit activations.

``applied(model, *interventions)`` observes the model's forward calls to know which tokens each one reads: a call without a KV
cache starts new texts and reads prompts alone, a call with one continues them. So positions mean the same in a plain forward
pass, in batched generation with left padding, and in a loop of the user's own. Hooks never edit in place, and they are removed
when the block ends, also by an exception. A hook that never fired raises an error, because its intervention did nothing.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from interp_transfer.activations.finite import all_finite
from interp_transfer.activations.positions import Layout, select
from interp_transfer.interventions.intervention import Intervention, check_intervention
from interp_transfer.interventions.transforms import At, Running, takes_at
from interp_transfer.models.exclusive import locked
from interp_transfer.models.hooked_model import HookedModel, huggingface_model
from interp_transfer.models.sites import hook_points, hooked
from interp_transfer.models.tokens import tokenizer_of

_UNKNOWN = -1
"""Stands for tokens whose ids the model was not given: embeddings, or what was in a KV cache before the block."""


class HookNeverFired(RuntimeError):
    """The site of an intervention was never computed, so the intervention did nothing."""


@contextmanager
def applied(
    model: HookedModel,
    *interventions: Intervention,
    prompt_lengths: Int[Tensor, " row"] | None = None,
    rows: Int[Tensor, " row"] | None = None,
) -> Iterator[None]:
    """Apply interventions to every call of the model inside the block, in the order of the arguments.

    Args:
        model: any hooked model; its ``generate``, ``run_with_cache``, ``forward`` and plain calls all count.
        interventions: the interventions.
        prompt_lengths: for forward passes over prompt and completion together (teacher forcing): how many real tokens of
            each row are its prompt. Without it, a pass without a KV cache is all prompt.
        rows: which text each row is, for transforms that read ``at.row``; 0, 1, ... by default.

    Raises:
        ValueError: before anything runs, for an unknown site, a vector of another model, or invalid positions.
        HookNeverFired: at the end of the block, if a site was never reached.
    """
    tokens_read = TokensRead(tokenizer_of(model) if model.tokenizer is not None else None, prompt_lengths, rows)
    with attached(model, interventions, tokens_read):
        yield


@dataclass
class TokensRead:
    """The tokens that the model has read inside one ``applied`` block: the only state that its hooks share.

    Attributes:
        tokenizer: the model's tokenizer, for positions that look at the text.
        prompt_lengths: see ``applied``.
        rows: see ``applied``.
        layout: all tokens that were read; None before the first forward call.
        new: how many columns the current forward call reads; they are the last ones of the layout.
        fired: sites whose hooks fired.
    """

    tokenizer: Any
    prompt_lengths: Int[Tensor, " row"] | None
    rows: Int[Tensor, " row"] | None
    layout: Layout | None = None
    new: int = 0
    fired: set[str] = field(default_factory=set)
    _selected: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def begin(self, tokens: Int[Tensor, "row column"], real: Bool[Tensor, "row column"]) -> None:
        """Record tokens that were read before the block; more tokens of the prompts may follow."""
        self.layout = self._new_layout(tokens, real)

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Keep some of the rows and drop the others."""
        assert self.layout is not None
        kept = {name: getattr(self.layout, name)[rows] for name in ("tokens", "real", "prompt_lengths", "rows")}
        self.layout = replace(self.layout, **kept)

    def record(self, tokens: Int[Tensor, "row column"], mask: Tensor | None, past: int) -> None:
        """Record a forward call that reads ``tokens`` after ``past`` columns in the KV cache."""
        self._selected.clear()
        self.new = tokens.shape[1]
        before = self.layout
        if past and (before is None or before.tokens.shape != (len(tokens), past)):
            # The cache was filled outside this block: it holds a prompt whose tokens are unknown.
            unknown = torch.full((len(tokens), past), _UNKNOWN, device=tokens.device)
            before = self._new_layout(unknown, _real_columns(mask, tokens, past, past))
        if not past or before is None:
            self.layout = self._new_layout(tokens, _real_columns(mask, tokens, 0, self.new))
            return
        real = _real_columns(mask, tokens, past, past + self.new)
        self.layout = replace(
            before,
            tokens=torch.cat([before.tokens, tokens], dim=1),
            real=torch.cat([before.real, real[:, past:]], dim=1),
        )

    def select(self, intervention: Intervention) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Return row and new column of the tokens that an intervention selects; computed once for each forward call."""
        key = id(intervention)
        if key not in self._selected:
            assert self.layout is not None
            row, column = select(intervention.positions, self.layout)[:, -self.new :].nonzero(as_tuple=True)
            self._selected[key] = row, column
        return self._selected[key]

    def _new_layout(self, tokens: Tensor, real: Tensor) -> Layout:
        lengths = real.sum(dim=1)
        if self.prompt_lengths is not None:
            if len(self.prompt_lengths) != len(tokens):
                raise ValueError(f"{len(self.prompt_lengths)} prompt lengths for {len(tokens)} rows: give one for each row")
            lengths = self.prompt_lengths.to(lengths)  # more of a prompt may follow, in chunks
        rows = self.rows if self.rows is not None else torch.arange(len(tokens))
        if len(rows) != len(tokens):
            raise ValueError(f"{len(rows)} row numbers for {len(tokens)} rows: give one for each row")
        return Layout(tokens, real, lengths, rows.to(tokens.device), self.tokenizer)


def in_use(model: HookedModel, interventions: Sequence[Intervention]) -> AbstractContextManager[None]:
    """Have a model, and those that interventions follow, for oneself."""
    followed = (getattr(intervention.transform, "source", None) for intervention in interventions)
    return locked(model, *(source for source in followed if isinstance(source, HookedModel)))


@contextmanager
def attached(model: HookedModel, interventions: Sequence[Intervention], tokens_read: TokensRead) -> Iterator[None]:
    """Apply interventions as ``applied`` does, with a record of tokens that the caller holds."""
    checked = [check_intervention(model, intervention) for intervention in interventions]
    points = [(site, point, k) for k, i in enumerate(checked) for site, point in hook_points(model, i.site, edit=True).items()]
    observed = _observed_bridge if huggingface_model(model) is not None else _observed_transformer
    with in_use(model, interventions), ExitStack() as stack:
        running = [stack.enter_context(started(model, intervention)) for intervention in checked]
        stack.enter_context(observed(model, tokens_read.record))
        for site, point, k in points:
            stack.enter_context(hooked(point, _edit_hook(site, running[k], tokens_read)))
        yield
    missed = [site for site, _, _ in points if site not in tokens_read.fired]
    if missed:
        reason = "no forward pass of this model ran inside the block" if tokens_read.layout is None else "no pass reached it"
        raise HookNeverFired(
            f"hook {missed[0]!r} never fired, so the intervention did nothing: {reason} "
            "(a pass may have stopped before it, or a use_... switch of the model may be off)"
        )


def _real_columns(mask: Tensor | None, tokens: Tensor, past: int, total: int) -> Bool[Tensor, "row column"]:
    """Which of the first ``total`` columns (or more) are tokens and not padding; all of them without a mask."""
    if mask is None:
        return torch.ones(len(tokens), total, dtype=torch.bool, device=tokens.device)
    if mask.ndim != 2:
        raise ValueError(f"attention_mask has shape {tuple(mask.shape)}: interventions need the (row, token) mask")
    if mask.shape[1] == tokens.shape[1] and past:
        mask = torch.cat([mask.new_ones(len(mask), past), mask], dim=1)
    return mask[:, :total].to(tokens.device).bool()


Record = Callable[[Tensor, Tensor | None, int], None]
"""(tokens, attention mask, columns in the KV cache) of a forward call."""


@contextmanager
def _observed_bridge(model: HookedModel, record: Record) -> Iterator[None]:
    """Record every forward call of the transformers model inside a bridge."""

    def before_forward(module: nn.Module, args: tuple, kwargs: dict) -> None:  # noqa: ARG001 - torch passes the module
        tokens = kwargs.get("input_ids", args[0] if args else None)
        if tokens is None:
            embeddings = kwargs["inputs_embeds"]
            tokens = torch.full(embeddings.shape[:2], _UNKNOWN, device=embeddings.device)
        cache = kwargs.get("past_key_values")
        past = int(cache.get_seq_length()) if cache is not None else 0
        record(tokens, kwargs.get("attention_mask"), past)

    handle = huggingface_model(model).register_forward_pre_hook(before_forward, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _observed_transformer(model: Any, record: Record) -> Iterator[None]:
    """Record every forward call of a ``HookedTransformer``.

    Its ``generate`` calls ``forward`` without PyTorch's hooks, and with embeddings instead of tokens. So ``forward`` itself is
    replaced inside the block, and the tokens are read at the embedding.
    """
    embedded: list[Tensor] = []
    signature = inspect.signature(type(model).forward)
    before, inner = model.__dict__.get("forward"), model.forward

    def before_embedding(module: nn.Module, args: tuple) -> None:  # noqa: ARG001 - torch passes the module
        if embedded and len(embedded[0]) != len(args[0]):
            embedded.clear()
        embedded.append(args[0])

    def forward(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(model, *args, **kwargs).arguments
        tokens, mask, cache = arguments["input"], arguments.get("attention_mask"), arguments.get("past_kv_cache")
        past = int(cache[0].past_keys.shape[1]) if cache is not None else 0
        options = {name: arguments[name] for name in ("prepend_bos", "padding_side") if name in arguments}
        if isinstance(tokens, str | list):
            tokens = model.to_tokens(tokens, **options)
        elif tokens.is_floating_point():
            latest = torch.cat(embedded, dim=1)[:, -tokens.shape[1] :] if embedded else tokens.new_empty(0, 0)
            known = latest.shape == tokens.shape[:2]
            tokens = latest if known else torch.full(tokens.shape[:2], _UNKNOWN, device=tokens.device)
        tokens = tokens[None] if tokens.ndim == 1 else tokens
        side = options.get("padding_side", getattr(model.tokenizer, "padding_side", None))
        if mask is None and not past and side == "left":
            from transformer_lens.utilities.tokenize_utils import get_attention_mask

            mask = get_attention_mask(model.tokenizer, tokens, bool(model.cfg.default_prepend_bos))
        record(tokens, mask, past)
        return inner(*args, **kwargs)

    handle = model.embed.register_forward_pre_hook(before_embedding)
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
def started(model: HookedModel, intervention: Intervention) -> Iterator[Intervention]:
    """The intervention with its transform started, if the transform keeps a state from step to step."""
    transform = intervention.transform
    with transform.running(model) if isinstance(transform, Running) else nullcontext(transform) as step:
        yield intervention if step is transform else replace(intervention, transform=step)


def _edit_hook(site: str, intervention: Intervention, tokens_read: TokensRead) -> Any:
    """The hook that applies an intervention at a hook point."""
    transform, with_at = intervention.transform, takes_at(intervention.transform)

    def hook(tensor: Tensor, hook: Any) -> Tensor | None:  # noqa: ARG001 - transformer-lens passes it by name
        tokens_read.fired.add(site)
        row, column = tokens_read.select(intervention)
        layout = tokens_read.layout
        if not len(row) or layout is None:
            return None
        if tensor.shape[:2] != (len(layout.tokens), tokens_read.new):
            raise ValueError(f"{site!r} has shape {tuple(tensor.shape)}, not (text, token, ...): it cannot be edited by token")
        index = row.to(tensor.device), column.to(tensor.device)
        every = len(row) == tensor.shape[0] * tensor.shape[1]
        rows = tensor.flatten(0, 1).flatten(1) if every else tensor[index].flatten(1)
        at = At(layout, (row, column + layout.tokens.shape[1] - tokens_read.new))
        changed = transform(rows, at) if with_at else transform(rows)
        if not isinstance(changed, Tensor) or changed.shape != rows.shape:
            returned = tuple(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
            raise ValueError(
                f"the transform at {site!r} returned {returned} for rows of shape {tuple(rows.shape)}: keep the shape"
            )
        changed = changed.to(tensor.dtype)
        if not all_finite(changed):
            raise _not_finite(site, rows, changed, at)
        if every:
            return changed.reshape(tensor.shape)
        out = tensor.clone()
        out[index] = changed.reshape(-1, *tensor.shape[2:])
        return out

    return hook


def _not_finite(site: str, before: Tensor, after: Tensor, at: At) -> ValueError:
    """The error for rows that hold NaN or infinity after, or already before, a transform."""
    k = int((~torch.isfinite(after).all(dim=1)).nonzero()[0, 0])
    token = f"text {int(at.row[k])}, token {int(at.position[k])}"
    if torch.isfinite(before[k]).all():
        return ValueError(f"the transform at {site!r} gives NaN or infinity at {token}: check the vector and its strength")
    return ValueError(f"the activation at {site!r} is NaN or infinite at {token}: load the model with dtype='float32'")
