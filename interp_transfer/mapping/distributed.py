"""Work shared by several ranks, as ``torchrun`` or ``accelerate launch`` starts them.

Every rank makes the same calls in the same order; a process that runs alone exchanges nothing. A rank that fails ends the job:
the launcher stops the other ranks, and the restarted job resumes from the store and the checkpoint. Values are exchanged by
gloo, between the ranks' main memories, whatever device the models run on.
"""

import os
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
from jaxtyping import Num
from torch import Tensor, nn

T = TypeVar("T")

_TIMEOUT = timedelta(days=7)  # one rank may read texts for days after another has finished; the launcher notices dead ranks


def rank_and_size() -> tuple[int, int]:
    """Return this process's rank and the number of ranks; 0 and 1 for a process that runs alone.

    Initialises ``torch.distributed`` from the launcher's environment variables (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT)
    unless that is done already.
    """
    dist = torch.distributed
    if not dist.is_available():
        return 0, 1
    if not dist.is_initialized():
        if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return 0, 1
        _initialize()
    return dist.get_rank(), dist.get_world_size()


def _initialize() -> None:
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://"))
    # torchrun keeps its store when it restarts the ranks of a node, and with it the addresses of the dead ones. Several nodes
    # may count restarts differently; there TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 makes torchrun open a new store.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if os.environ.get("GROUP_WORLD_SIZE") == "1" else "0"
    fresh = PrefixStore(f"attempt-{attempt}", store)
    torch.distributed.init_process_group(store=fresh, rank=rank, world_size=size)


def summed(value: Num[Tensor, "..."]) -> Num[Tensor, "..."]:
    """Return the sum over all ranks, the same bits in each."""
    if rank_and_size()[1] == 1:
        return value
    total = value.clone()
    torch.distributed.all_reduce(total, group=_group())
    return total


def gathered(value: T) -> list[T]:
    """Return every rank's value, in the order of ranks."""
    size = rank_and_size()[1]
    if size == 1:
        return [value]
    values: list[Any] = [None] * size
    torch.distributed.all_gather_object(values, value, group=_group())
    return values


def from_first(value: T) -> T:
    """Return the first rank's value."""
    if rank_and_size()[1] == 1:
        return value
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0, group=_group())
    return values[0]


def check_same(arguments: Mapping[str, Any]) -> None:
    """Check that all ranks make the same call.

    Raises:
        ValueError: in every rank, naming the first argument that differs.
    """
    first, *others = gathered(dict(arguments))
    for rank, theirs in enumerate(others, 1):
        for name in {**first, **theirs}:
            if first.get(name) != theirs.get(name):
                raise ValueError(
                    f"rank {rank} has {name}={theirs.get(name)!r} and rank 0 has {name}={first.get(name)!r}: make the same "
                    "call in every rank"
                )


def data_parallel(module: nn.Module) -> nn.Module:
    """Return a module whose gradients are averaged over all ranks in each backward pass; alone, the module itself."""
    return module if rank_and_size()[1] == 1 else nn.parallel.DistributedDataParallel(module, process_group=_group())


def _group() -> Any:
    return _gloo(torch.distributed.group.WORLD)


@cache
def _gloo(_world: Any) -> Any:
    """A process group of our own for each default group, which may lack a CPU backend and times out after half an hour."""
    return torch.distributed.new_group(backend="gloo", timeout=_TIMEOUT)
