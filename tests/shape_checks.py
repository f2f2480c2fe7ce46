"""Check shapes where a signature has them, and types alone elsewhere. Importing this module installs the change.

``jaxtyped`` binds the arguments of every call a second time and checks them twice, to compare axes between arguments and with
the returned value. That doubles the time of many tests. In a function without array annotations it finds no more than beartype
does, so such a function is decorated with beartype alone.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any, ForwardRef, Literal, TypeVar, get_args, get_origin

import jaxtyping

_jaxtyped = jaxtyping.jaxtyped


def may_have_shapes(hint: Any) -> bool:
    """Whether a type hint is or contains an array with named axes, or something that may stand for one."""
    if isinstance(hint, str | ForwardRef | TypeVar):
        return True
    if isinstance(hint, list):  # the parameters of a Callable
        return any(map(may_have_shapes, hint))
    if get_origin(hint) is Literal:
        return False
    return (isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray)) or any(map(may_have_shapes, get_args(hint)))


def jaxtyped(*, typechecker: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Decorate as ``jaxtyping.jaxtyped`` does; the import hook of ``--jaxtyping-packages`` calls it by this name."""

    def decorate(decorated: Any) -> Any:
        if isinstance(decorated, FunctionType) and not any(map(may_have_shapes, decorated.__annotations__.values())):
            return typechecker(decorated)
        return _jaxtyped(decorated, typechecker=typechecker)

    return decorate


jaxtyping.jaxtyped = jaxtyped
