"""How processes that were started together find each other for a call that all of them make.

Each call gets connections of its own, by gloo: between the processes' memories, whatever the models run on.
"""

import itertools
import os
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import torch

ARRIVAL = timedelta(minutes=30)
"""How long to wait for the others to make the same call: they may be loading models still."""

PATIENCE = timedelta(hours=2)
"""How long to wait for a process that is connected. One that dies is noticed at once, so this is for one that stands still."""

_GLANCE = 0.05  # seconds between two looks at who is there

_calls = itertools.count()
_corner: Any = None  # of the store that all can read, this program's own


class ProcessError(ConnectionError):
    """Another process is gone, or stopped with an error of its own; the message says which."""


def several() -> bool:
    """Whether this process was started as one of several, or has been told of others."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size() > 1
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def meet(what: str) -> tuple[Any, Any]:
    """Wait until all processes have come to the same call, and connect them.

    Args:
        what: the name of the call.

    Returns:
        A store in which each can leave notes for the others, and a group of connections.

    Raises:
        ProcessError: naming who did not come, or is at another call.
    """
    global _corner
    from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

    dist = torch.distributed
    if not dist.is_initialized():
        _corner = _initialize(what)
    elif _corner is None:
        _corner = _fresh(_get_default_store(), dist.get_rank(), dist.get_world_size(), what)
    rank, ranks = dist.get_rank(), range(dist.get_world_size())
    store = PrefixStore(f"{next(_calls)}", _corner)
    store.set(f"here/{rank}", what)
    with suppress(RuntimeError):
        store.wait([f"here/{other}" for other in ranks], ARRIVAL)
    if missing := [other for other in ranks if not store.check([f"here/{other}"])]:
        store.set("late", _late(missing, len(ranks), what))
    if store.check(["late"]):  # for those who come when the others have given up
        raise ProcessError(store.get("late").decode())
    others = {other: store.get(f"here/{other}").decode() for other in ranks}
    if wrong := [other for other in ranks if others[other] != what]:
        raise ProcessError(
            f"rank {wrong[0]} calls {others[wrong[0]]}(...) and rank {rank} {what}(...): all processes have to make the same "
            "calls, in the same order"
        )
    try:
        return store, dist.new_group(backend="gloo", timeout=PATIENCE)
    except RuntimeError as error:
        raise ProcessError(
            f"rank {rank} could not connect to the others for {what}(...), one of them may be gone "
            f"({str(error).splitlines()[0]}): start all of them again"
        ) from error


def _initialize(what: str) -> Any:
    """Let ``torch.distributed`` know of the others, such that the user's own use of it, or of accelerate, finds it as usual."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    # PartialState chooses the backend that training on these devices wants; that there are none, it has to be told.
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    try:
        store, rank, count = next(rendezvous("env://", timeout=ARRIVAL))
        corner = _fresh(store, rank, count, what)
        PartialState(cpu=cpu, timeout=ARRIVAL, store=PrefixStore("default", corner), rank=rank, world_size=count)
    except (RuntimeError, ValueError) as error:
        raise ProcessError(
            f"the processes that were started together did not find each other ({str(error).splitlines()[0]}): start them with "
            "torchrun or accelerate launch, or check RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT"
        ) from error
    return corner


def _fresh(store: Any, rank: int, count: int, what: str) -> Any:
    """A corner of the store that no earlier start of the same processes has left anything in.

    ``torchrun`` keeps its store when it starts processes again, and with it the addresses of those that are dead. So each
    draws a number, and all of them together name the corner, once everyone has seen the same ones.
    """
    from torch.distributed.distributed_c10d import PrefixStore

    def read(key: str) -> list[str]:
        keys = [f"interp_transfer/{key}/{other}" for other in range(count)]
        return [store.get(key).decode() if store.check([key]) else "" for key in keys]

    store.set(f"interp_transfer/drawn/{rank}", uuid4().hex)
    end = time.monotonic() + ARRIVAL.total_seconds()
    while True:
        name = "-".join(read("drawn"))
        store.set(f"interp_transfer/seen/{rank}", name)
        seen = read("seen")
        if seen == [name] * count:
            return PrefixStore(f"interp_transfer/{name}", store)
        if time.monotonic() > end:
            raise ProcessError(_late([other for other in range(count) if seen[other] != name], count, what))
        time.sleep(_GLANCE)


def _late(ranks: list[int], count: int, what: str) -> str:
    return (
        f"rank {' and '.join(map(str, ranks))} of {count} did not come to {what}(...) within {ARRIVAL.total_seconds():.0f} "
        "seconds: all processes have to make the same calls, in the same order"
    )
