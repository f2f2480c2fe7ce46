"""Bypass the wrappers of a ``TransformerBridge`` that have no hooks.

A bridge puts a wrapper with hook points around each module of the transformers model, and computes attention itself, with
scores and patterns as tensors of their own. At width 256 this makes generating a token a third slower. A wrapped module without
hooks computes the same alone, so it replaces its wrapper inside the block; hooks elsewhere see the same activations as before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from interp_transfer.models.hooked_model import HookedModel

_COUPLING_SWITCHES = ("use_split_qkv_input", "use_attn_in", "use_attn_result", "use_hook_mlp_in")
"""Switches of a bridge under which its wrappers depend on each other."""

_WRAPPED = "_original_component"
_BLOCK_ENDS = ("hook_in", "hook_out")
_INTERNAL_HOOKS = ("BlockBridge.", "install_output_")
"""Beginnings of the names of hooks that bridges and transformers keep on their modules for themselves."""

Swap = tuple[nn.Module, str, nn.Module]
"""Parent, name of the child, wrapper."""


@contextmanager
def bypassed(model: HookedModel) -> Iterator[None]:
    """Run without the wrappers that have no hooks on or inside them.

    Hooks are looked up when the block begins; one that is added inside the block may not fire. Nothing is bypassed in other
    wrappers, in bridges whose weights were processed (their wrappers hold the weights) or that are in compatibility mode, and
    under switches that make wrappers depend on each other.
    """
    swaps: list[Swap] = []
    if _can_bypass(model):
        root: nn.Module = model.original_model  # type: ignore[attr-defined]
        hooked: dict[int, bool] = {}
        _mark_hooked(root, hooked)
        _collect_swaps(root, hooked, swaps)
    try:
        for parent, name, wrapper in swaps:
            parent._modules[name] = wrapper._modules[_WRAPPED]
        yield
    finally:
        for parent, name, wrapper in swaps:
            parent._modules[name] = wrapper


def has_no_hooks(model: HookedModel) -> bool:
    """Whether a model is a bridge that can be bypassed as a whole: it has no hooks but its internal ones."""
    return _can_bypass(model) and not _mark_hooked(model.original_model, {})  # type: ignore[attr-defined]


def is_internal_hook(hook: Any) -> bool:
    """Whether a hook is one that bridges and transformers keep on their modules for themselves."""
    return getattr(hook, "__qualname__", "").startswith(_INTERNAL_HOOKS)


def _can_bypass(model: Any) -> bool:
    if type(model).__name__ != "TransformerBridge" or model.compatibility_mode or getattr(model, "_weights_processed", True):
        return False
    return not any(getattr(model.cfg, switch, False) for switch in _COUPLING_SWITCHES)


def _mark_hooked(module: nn.Module, hooked: dict[int, bool]) -> bool:
    """Whether a hook is on a module or inside it; notes the same for every module inside, by id."""
    if id(module) not in hooked:
        hooked[id(module)] = _has_hook(module)  # noted first, because a bridge's modules form cycles
        for child in module._modules.values():
            if child is not None and _mark_hooked(child, hooked):
                hooked[id(module)] = True
    return hooked[id(module)]


def _has_hook(module: nn.Module) -> bool:
    """Whether a hook is on this very module, apart from internal ones."""
    own = module.__dict__
    if own.get("fwd_hooks") or own.get("bwd_hooks") or own["_backward_hooks"] or own["_backward_pre_hooks"]:
        return True
    hooks = (*own["_forward_hooks"].values(), *own["_forward_pre_hooks"].values())
    return not all(map(is_internal_hook, hooks))


def _collect_swaps(parent: nn.Module, hooked: dict[int, bool], swaps: list[Swap]) -> None:
    """Add the children of ``parent``, and of the modules that they wrap, that can be bypassed."""
    for name, child in parent._modules.items():
        if child is None:
            continue
        parts = child._modules
        wrapped = parts.get(_WRAPPED)
        if wrapped is None:
            _collect_swaps(child, hooked, swaps)
        elif not hooked[id(child)] and "qkv" not in parts and type(child).__name__ != "PosEmbedBridge":
            # A joint projection (qkv) stays wrapped, because its wrapper computes with the parts of the weight, which can be
            # edited; the position embedding too, because its wrapper stores the size of each batch for one call.
            swaps.append((parent, name, child))
            _collect_swaps(wrapped, hooked, swaps)
        elif getattr(child, "is_list_item", False) and not any(hooked[id(part)] for part in _inner_hook_points(parts)):
            _collect_swaps(wrapped, hooked, swaps)  # a block with hooks at its ends alone


def _inner_hook_points(parts: dict[str, nn.Module | None]) -> list[nn.Module]:
    """A block's own hook points that modules inside it fire, such as ``hook_mlp_in``."""
    return [part for name, part in parts.items() if part is not None and name.startswith("hook_") and name not in _BLOCK_ENDS]
