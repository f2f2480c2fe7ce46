"""Have a model for oneself: hooks and wrappers are shared, so two threads that steer one model would change each other's."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock, RLock
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from interp_transfer.models.hooked_model import HookedModel, check_model, huggingface_model

_LOCKS: "WeakKeyDictionary[Any, Any]" = WeakKeyDictionary()
_NEW = Lock()


@contextmanager
def locked(*models: HookedModel) -> Iterator[None]:
    """Wait until no other thread uses any of the models, and keep others waiting. Blocks of one thread may be nested.

    Locks are taken in one order, so that threads which need the same models do not wait for each other for ever.
    """
    for model in models:
        check_model(model)
    with _NEW:
        locks = [_LOCKS.setdefault(model, RLock()) for model in sorted(set(models), key=id)]
    with ExitStack() as stack:
        for lock in locks:
            stack.enter_context(lock)
        yield


@contextmanager
def exclusive(model: HookedModel) -> Iterator[None]:
    """Have a model for oneself, in evaluation mode; a model in training mode, whose dropout is random, is put back into it."""
    module: nn.Module = huggingface_model(model) or model  # type: ignore[assignment]
    with locked(model):
        training = [part for part in module.modules() if part.training] if module.training else []
        for part in training:
            part.training = False
        try:
            yield
        finally:
            for part in training:
                part.training = True
