"""The one context manager that puts interventions into a model.

``applied(model, *interventions)`` watches the model's forward calls to know which tokens each one reads: a call without a KV
cache starts a new text and is all prompt, a call with one continues. So rules of positions mean the same in a plain forward
pass, in batched generation with left padding, and in any loop of the user's own. Hooks never edit in place, and are gone
when the block ends, however it ends. A hook that never fired is an error: the intervention did nothing.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from interp_transfer.activations.capture import hooked
from interp_transfer.activations.positions import Layout, select
from interp_transfer.interventions.intervention import Intervention, _checked
from interp_transfer.interventions.transforms import At, Running, takes_at
from interp_transfer.models.hooked_model import HookedModel, huggingface_model
from interp_transfer.models.sites import hook_points
from interp_transfer.models.tokens import tokenizer_of


class HookNeverFired(RuntimeError):
    """An intervention's site was never computed, so the intervention did nothing."""


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
