"""Check at load that a wrapped model computes what the model alone computes.

transformer-lens computes attention and other parts itself, so that there are hook points inside. For some architectures it
computes something else, and a hook that does nothing changes the model. So one block of each kind is run before the model is
wrapped, on two short texts of unequal length, without and with a KV cache, and afterwards on the same input in its wrapper.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from interp_transfer.models.bypass import bypassed
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import WrapperCheck
from interp_transfer.models.sites import RESIDUAL_WRITES, hooked
from interp_transfer.models.supported import language_config

TEXTS = ("The cat sat on the mat.", "Yes, it")
TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3}
"""Largest difference of a token, as a share of what the block adds to it, by dtype."""
HALF_TOLERANCE = 0.05
"""The same for 16-bit dtypes."""


@dataclass(frozen=True)
class _Call:
    """A call of a block of the model alone.

    Attributes:
        args: positional arguments, before a KV cache was changed by the call.
        kwargs: other arguments, likewise.
        outputs: what it returned, with eager attention and with the model's own. In 16 bits they may differ by a fifth of what
            a block adds (docs/models.md), so a wrapper has to agree with one of them.
        real: which tokens are no padding.
        cache: the KV cache itself, to which later blocks and calls add.
    """

    args: tuple
    kwargs: dict[str, Any]
    outputs: tuple[Float[Tensor, "text column d_model"], ...]
    real: Bool[Tensor, "text column"]
    cache: Any

    def again(self, block: nn.Module) -> Tensor:
        """Return what a block returns for the same arguments."""
        args, kwargs = deepcopy((self.args, self.kwargs))
        return _tensor(block(*args, **kwargs))


@dataclass(frozen=True)
class BlockCalls:
    """Calls of the first block of each kind.

    Attributes:
        of: the calls, by the number of the block.
        alike: the numbers of all blocks of its kind, by the same.
    """

    of: Mapping[int, list[_Call]]
    alike: Mapping[int, list[int]]


class _Enough(Exception):
    """Raised after the last block that is needed."""


@torch.no_grad()
def block_calls(hf: Any, tokenizer: Any) -> BlockCalls:
    """Run two texts through a transformers model, without and with a KV cache, and record the first block of each kind.

    None is recorded where a model's blocks are not found, are on no device, or are not called as those of most models.

    Raises:
        ValueError: for a model whose blocks return NaN or infinity.
    """
    blocks = _block_list(hf)
    if blocks is None or any(parameter.is_meta for parameter in hf.parameters()):
        return BlockCalls({}, {})
    try:
        recorded = _block_calls(hf, blocks, tokenizer)
    except Exception:  # noqa: BLE001 - a check that cannot be made keeps no model from being loaded
        return BlockCalls({}, {})
    calls = [call for each in recorded.of.values() for call in each]
    if any(call.outputs[0].shape[:2] != call.real.shape for call in calls):
        return BlockCalls({}, {})
    if not all(torch.isfinite(call.outputs[0][call.real]).all() for call in calls):
        dtype = str(calls[0].outputs[0].dtype).removeprefix("torch.")
        raise ValueError(f"the model computes NaN or infinity in {dtype}: load it with dtype='float32' or 'bfloat16'")
    return recorded


def _block_calls(hf: Any, blocks: nn.ModuleList, tokenizer: Any) -> BlockCalls:
    kinds: dict[tuple, list[int]] = {}
    for k, block in enumerate(blocks):
        kinds.setdefault(_kind(block), []).append(k)
    alike = {numbers[0]: numbers for numbers in kinds.values()}
    calls: dict[int, list[_Call]] = {k: [] for k in sorted(alike)}
    embedding = hf.get_input_embeddings().weight
    rows = [torch.tensor(tokenizer(text)["input_ids"] or [0]) % len(embedding) for text in TEXTS]
    tokens, real = (
        pad_sequence(each, batch_first=True, padding_side="left").to(embedding.device)
        for each in (rows, [torch.ones_like(row, dtype=torch.bool) for row in rows])
    )
    position = (real.long().cumsum(dim=1) - 1).clamp(min=0)
    with _explicit_masks(hf):
        for first, last, cached in ((0, None, False), (0, -1, True), (-1, None, True)):
            cache = calls[max(calls)][-1].cache if first else None
            if first and cache is None:  # these blocks keep none
                continue
            options = {"use_cache": cached, "past_key_values": cache, "position_ids": position[:, first:last]}
            with _recorded(blocks, calls, real[:, first:last]), suppress(_Enough):
                hf(tokens[:, first:last], attention_mask=real[:, :last].long(), **options)
    both = {k: [replace(call, outputs=(*call.outputs, call.again(blocks[k]))) for call in each] for k, each in calls.items()}
    return BlockCalls(both, alike)


def check_wrapper(model: HookedModel, calls: BlockCalls) -> WrapperCheck:
    """Hold the blocks of a wrapped model against their calls before.

    Raises:
        ValueError: when the blocks differ without any hook.
    """
    differing = _differing(model, calls)
    return WrapperCheck(differing, 0.0 if differing else max(_left(model, k, each[0]) for k, each in calls.of.items()))


def _differing(model: HookedModel, calls: BlockCalls) -> dict[str, float]:
    """The sites at which a hook that does nothing changes what a block returns, with the largest change."""
    found: dict[str, float] = {}
    for k, recorded in calls.of.items():
        alone = _difference(model, k, recorded)
        if alone > _tolerance(recorded):
            raise ValueError(f"block {k} differs from that of transformers by {alone:.0%} of what it adds")
        if _difference(model, k, recorded, bypass=False) <= _tolerance(recorded):
            continue
        for name, point in model.hook_dict.items():
            if name.startswith(f"blocks.{k}."):
                with hooked(point, lambda tensor, hook: None):  # noqa: ARG005 - transformer-lens passes both
                    change = _difference(model, k, recorded)
                if change > _tolerance(recorded):
                    found |= {name.replace(f".{k}.", f".{j}.", 1): change for j in calls.alike[k]}
    return found


def _tolerance(recorded: list[_Call]) -> float:
    return TOLERANCE.get(recorded[0].outputs[0].dtype, HALF_TOLERANCE)


@torch.no_grad()
def _difference(model: HookedModel, k: int, recorded: list[_Call], bypass: bool = True) -> float:
    """The largest difference of a token between a wrapped block and the block alone, as a share of what the block adds."""
    largest = 0.0
    for call in recorded:
        with bypassed(model) if bypass else nullcontext():
            output = _wrapped_output(model, k, call)
        if output is None:
            return float("inf")
        read = call.args[0] if call.args else call.kwargs["hidden_states"]
        shares = []
        for alone in call.outputs:
            added, apart = ((one - other)[call.real].float().norm(dim=-1) for one, other in ((alone, read), (output, alone)))
            share = apart / added.maximum(added.median()).clamp(min=torch.finfo(torch.float32).tiny)
            shares.append(float(share.nan_to_num(torch.inf).max()))
        largest = max(largest, min(shares))
    return largest


def _wrapped_output(model: HookedModel, k: int, call: _Call) -> Tensor | None:
    """What a wrapped block returns for a call; None if it cannot be run, for whatever reason."""
    try:
        return call.again(model.blocks[k])  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - wrappers raise errors of all classes
        return None


@torch.no_grad()
def _left(model: HookedModel, k: int, call: _Call) -> float:
    """The share of a direction that ablation at a block's input, attention and MLP leaves; 0 where there is no such site."""
    points = [model.hook_dict.get(site.replace("*", str(k))) for site in RESIDUAL_WRITES]
    if None in points:
        return 0.0
    direction = nn.functional.normalize(call.outputs[0][call.real].float().mean(dim=0), dim=0)

    def ablate(tensor: Tensor, hook: Any) -> Tensor:  # noqa: ARG001 - transformer-lens passes it by name
        return (tensor.float() - (tensor.float() @ direction)[..., None] * direction).to(tensor.dtype)

    with ExitStack() as stack:
        for point in points:
            stack.enter_context(hooked(point, ablate))
        stack.enter_context(bypassed(model))
        output = _wrapped_output(model, k, call)
    if output is None:  # ablation says so itself where it is tried
        return 0.0
    before, after = ((rows[call.real].float() @ direction).abs().mean() for rows in (call.outputs[0], output))
    return float(after / before)


@contextmanager
def _recorded(blocks: nn.ModuleList, calls: dict[int, list[_Call]], real: Bool[Tensor, "text column"]) -> Iterator[None]:
    """Record the calls of some blocks, and end the pass after the last of them."""
    began: dict[int, tuple[tuple, dict[str, Any]]] = {}
    caches: dict[int, Any] = {}

    def hooks(k: int) -> tuple[Any, Any]:
        def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:  # noqa: ARG001 - torch passes it
            caches[k] = next((value for value in (*args, *kwargs.values()) if hasattr(value, "get_seq_length")), None)
            began[k] = deepcopy((args, kwargs))

        def after(module: nn.Module, args: tuple, output: Any) -> None:  # noqa: ARG001 - torch passes them
            calls[k].append(_Call(*began[k], (_tensor(output),), real, caches[k]))
            if k == max(calls):
                raise _Enough

        return before, after

    handles = []
    for k in calls:
        before, after = hooks(k)
        handles += [blocks[k].register_forward_pre_hook(before, with_kwargs=True), blocks[k].register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _explicit_masks(hf: Any) -> Iterator[None]:
    """Run with eager attention, for which a model hands masks to its blocks; a wrapper may change a model to it."""
    own = hf.config._attn_implementation
    try:
        hf.set_attn_implementation("eager")
    except (ValueError, ImportError):
        own = None
    try:
        yield
    finally:
        if own is not None:
            hf.set_attn_implementation(own)


def _block_list(hf: Any) -> nn.ModuleList | None:
    """The blocks of a transformers model: the first list of as many modules as its configuration has layers."""
    count = getattr(language_config(hf.config), "num_hidden_layers", None)
    return next((m for m in hf.modules() if isinstance(m, nn.ModuleList) and len(m) == count), None)


def _kind(block: nn.Module) -> tuple:
    """What makes two blocks compute alike: the classes of their modules and the settings that these keep."""
    numbers = {"layer_idx", "layer_id", "layer_number"}
    return tuple(
        (name, type(module).__name__, *((k, v) for k, v in sorted(vars(module).items()) if _is_setting(v) and k not in numbers))
        for name, module in block.named_modules()
    )


def _is_setting(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)


def _tensor(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple | list) else output
