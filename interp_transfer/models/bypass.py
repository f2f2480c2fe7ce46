"""A shorter way through a bridge: past the wrappers that nobody listens to.

A ``TransformerBridge`` puts a wrapper with hook points in the place of each module of the transformers model, and computes
attention by itself, with scores and patterns as tensors of their own. All that costs: at width 256 a generated token takes a
third longer. Where no hook listens, the wrapped module alone computes the same; so for the length of a block it is put
back, and what the hooks that do listen see is what they saw before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from interp_transfer.models.hooked_model import HookedModel

_FORKS = ("use_split_qkv_input", "use_attn_in", "use_attn_result", "use_hook_mlp_in")
"""Switches of a bridge under which its wrappers depend on each other."""

_WRAPPED = "_original_component"
_ENDS = ("hook_in", "hook_out")
_THEIRS = ("BlockBridge.", "install_output_")


@contextmanager
def bypassed(model: HookedModel) -> Iterator[None]:
    """Run without the wrappers whose hook points, and those inside, have no hook now.

    Hooks are looked for on the way in: one added inside the block may not fire. Does nothing for other wrappers, for bridges
    whose weights were processed (the wrappers hold them) or that are in compatibility mode, and under switches that tie
    wrappers together.
    """
    swaps: list[tuple[nn.Module, str, nn.Module]] = []
    if _can(model):
        root: nn.Module = model.original_model  # type: ignore[attr-defined]
        heard: dict[int, bool] = {}
        _listen(root, heard)
        _plan(root, heard, swaps)
    try:
        for parent, name, wrapper in swaps:
            parent._modules[name] = wrapper._modules[_WRAPPED]
        yield
    finally:
        for parent, name, wrapper in swaps:
            parent._modules[name] = wrapper


def quiet(model: HookedModel) -> bool:
    """Whether nobody listens to a bridge: no hook is on any of its parts, apart from its own."""
    return _can(model) and not _listen(model.original_model, {})  # type: ignore[attr-defined]


def _can(model: Any) -> bool:
    if type(model).__name__ != "TransformerBridge" or model.compatibility_mode or getattr(model, "_weights_processed", True):
        return False
    return not any(getattr(model.cfg, switch, False) for switch in _FORKS)


def _listen(module: nn.Module, heard: dict[int, bool]) -> bool:
    """Note for a module and all inside whether a hook is on it or inside it."""
    found = heard.get(id(module))
    if found is None:
        found = heard[id(module)] = _hooked(module)
        for child in module._modules.values():
            if child is not None and _listen(child, heard):
                found = True
        heard[id(module)] = found
    return found


def _hooked(module: nn.Module) -> bool:
    """Whether a hook is on this very module, apart from those that bridge and transformers keep there for themselves."""
    own = module.__dict__
    if own.get("fwd_hooks") or own.get("bwd_hooks") or own["_backward_hooks"] or own["_backward_pre_hooks"]:
        return True
    hooks = (*own["_forward_hooks"].values(), *own["_forward_pre_hooks"].values())
    return any(not getattr(hook, "__qualname__", "").startswith(_THEIRS) for hook in hooks)


def _plan(parent: nn.Module, heard: dict[int, bool], swaps: list[tuple[nn.Module, str, nn.Module]]) -> None:
    """Note which children of ``parent``, and of what they wrap, to exchange."""
    for name, child in parent._modules.items():
        if child is None:
            continue
        parts = child._modules
        inside = parts.get(_WRAPPED)
        if inside is None:
            _plan(child, heard, swaps)
        elif not heard[id(child)] and "qkv" not in parts and type(child).__name__ != "PosEmbedBridge":
            # Left alone: a joint projection, whose wrapper computes with parts of the weight that one can edit, and the
            # position embedding, whose wrapper is told the size of each batch and forgets it when it runs.
            swaps.append((parent, name, child))
            _plan(inside, heard, swaps)
        elif getattr(child, "is_list_item", False) and not any(heard[id(part)] for part in _fired_by_parts(parts)):
            _plan(inside, heard, swaps)  # a block that is heard, though its parts may be quiet


def _fired_by_parts(parts: dict[str, nn.Module | None]) -> list[nn.Module]:
    """A block's own hook points apart from its ends, such as ``hook_mlp_in``: its parts fire them."""
    return [part for name, part in parts.items() if part is not None and name.startswith("hook_") and name not in _ENDS]
