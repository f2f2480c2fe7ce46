"""Several processes that make one call together, as ``torchrun`` or ``accelerate launch`` start them.

A function under `together` does its work with whoever makes the same call: it asks `crew` which part is its own, and what the
others found. A process that is alone has a `Crew` of one, with which nothing is sent, waited for or imported. Of
``torch.distributed`` this module alone knows, and `meeting`, where processes find each other.

A call has connections of its own (gloo, between the processes' memories, whatever the models run on). Whoever leaves a call
by an exception says why and closes them; the system closes those of a process that was killed. So all who wait for it wake at
once, and know from whom they waited: rows and sums go from process to process by way of the first, each by name.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import nn

from interp_transfer.mapping.meeting import ProcessError, meet, several

_ROLL_CALL = timedelta(seconds=3)  # in which all who noticed that somebody is gone can say so

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Crew:
    """The processes that make a call together: here one alone, who has everything and waits for nobody.

    Attributes:
        rank: which of them this one is, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and shows bars."""
        return self.rank == 0

    def bounds(self, total: int) -> tuple[int, int]:
        """Which of so many rows are this process's: the first, and the one behind the last."""
        return total * self.rank // self.count, total * (self.rank + 1) // self.count

    def agree(self, what: Mapping[str, Any]) -> None:
        """Refuse processes that were asked for different things.

        Raises:
            ValueError: in the first process, naming what differs and where; the others hear of it.
        """

    def handed(self, value: T | None, owner: int, takers: Iterable[int], label: str) -> T | None:  # noqa: ARG002
        """What one process has, for those who take it; None for the others.

        Args:
            value: what the owner has.
            owner: which process that is.
            takers: which processes take it.
            label: what it is; it must be the same for all.

        Raises:
            ValueError: if the owner is somewhere else in its work.
        """
        return value

    def merged(self, mine: T, merge: Callable[[T, T], T], label: str) -> T:  # noqa: ARG002
        """What all have found, merged in the order of ranks; the very same in every process.

        Args:
            mine: what this one found.
            merge: two findings into one.
            label: what it is.
        """
        return mine

    def from_first(self, value: T, label: str) -> T:
        """What the first process has, for all."""
        return cast(T, self.handed(value, 0, range(self.count), label))

    def average(self, parameters: Iterable[nn.Parameter], weight: float) -> None:
        """Replace gradients by their weighted sum over all processes.

        Args:
            parameters: whose; all processes have gradients for the same ones.
            weight: this process's share of the rows that the gradient is of; all of them together are 1.
        """


_ALONE = Crew()
_now = _ALONE


def crew() -> Crew:
    """Who makes the call that is going on: one alone, unless it is `together`."""
    return _now


def together(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function be called by all processes at once; `crew` tells it who they are. Alone it is what it was."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with _meeting(function.__name__):
            return function(*args, **kwargs)

    return call


class _Connected(Crew):
    """One of several.

    Args:
        store: where each can leave notes for the others.
        group: the connections.
    """

    def __init__(self, store: Any, group: Any) -> None:
        self.rank, self.count = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self._store, self._group = store, group

    def agree(self, what: Mapping[str, Any]) -> None:
        if not self.first:
            self._send(dict(what), 0, "request")
            return
        for other in range(1, self.count):
            theirs = self._receive(other, "request")
            for key in {**what, **theirs}:
                if (a := theirs.get(key)) != (b := what.get(key)):
                    raise ValueError(
                        f"rank {other} was given {key}={a!r} and rank 0 {key}={b!r}: make the same call in every process"
                    )

    def handed(self, value: T | None, owner: int, takers: Iterable[int], label: str) -> T | None:
        if self.rank == owner:
            for taker in takers:
                if taker != owner:
                    self._send(value, taker, label)
            return value
        return self._receive(owner, label) if self.rank in takers else None

    def merged(self, mine: T, merge: Callable[[T, T], T], label: str) -> T:
        total = mine
        if self.first:
            for other in range(1, self.count):
                total = merge(total, self._receive(other, label))
        else:
            self._send(mine, 0, label)
        return self.from_first(total, label)

    def average(self, parameters: Iterable[nn.Parameter], weight: float) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        whole = torch.cat([gradient.reshape(-1) for gradient in gradients])
        # Without rows the mean is NaN, and so may its gradient be.
        whole = whole * weight if weight else torch.zeros_like(whole)
        self._do(partial(torch.distributed.all_reduce, whole), None)
        for gradient, part in zip(gradients, whole.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def leave(self, error: BaseException | None = None) -> None:
        """Close the connections, after saying why if it is for an error."""
        if error is not None and not isinstance(error, ProcessError):
            said = " ".join(str(error).split())
            self._note(f"rank {self.rank} stopped with {type(error).__name__}{': ' if said else ''}{said}")
        group, self._group = self._group, None
        with suppress(RuntimeError):
            torch.distributed.destroy_process_group(group)

    def _send(self, value: Any, to: int, label: str) -> None:
        self._do(partial(torch.distributed.send_object_list, [(label, value)], dst=to), to)

    def _receive(self, other: int, label: str) -> Any:
        got: list[Any] = [None]
        self._do(partial(torch.distributed.recv_object_list, got, src=other), other)
        theirs, value = got[0]
        if theirs != label:
            raise ValueError(
                f"rank {other} is at its {theirs} and rank {self.rank} at its {label}: make the same call in every process"
            )
        return value

    def _do(self, exchange: Callable[..., Any], other: int | None) -> None:
        """Exchange something with another process, or with all."""
        problem = None
        try:
            exchange(group=self._group)
        except RuntimeError as error:
            # Not raised from here: the frames of its traceback would hold the connections open, and the others asleep.
            problem = str(error)
        if problem is not None:
            raise self._lost(other, problem)

    def _lost(self, other: int | None, problem: str) -> ProcessError:
        """Why an exchange failed: because of what another has said, or because it could say nothing any more."""
        # "[.../pair.cc:553] Connection closed by peer [127.0.0.1]:14259. This is typically caused by ..."
        brief = problem.splitlines()[0].split("] ", 1)[-1].split(". ", 1)[0]
        said = self._noted() or self._note(f"{self._missing(other)} ({brief})")
        return ProcessError(
            f"{said}; this is rank {self.rank} of {self.count}. Start all of them again: the same call goes on with what is in "
            "its store= or checkpoint= folder"
        )

    def _missing(self, other: int | None) -> str:
        ranks = [rank for rank in range(self.count) if rank != self.rank] if other is None else [other]
        if len(ranks) > 1:  # all were in this exchange, so that all who live have noticed
            with suppress(RuntimeError):
                self._store.set(f"noticed/{self.rank}", "yes")
                with suppress(RuntimeError):
                    self._store.wait([f"noticed/{rank}" for rank in ranks], _ROLL_CALL)
                ranks = [rank for rank in ranks if not self._store.check([f"noticed/{rank}"])] or ranks
        who = " or ".join(f"rank {rank}" for rank in ranks)
        return f"{who} is gone: its process ended, was killed, or cannot be reached"

    def _note(self, text: str) -> str:
        """Leave a note for the others unless there is one; the one that is there in the end."""
        with suppress(RuntimeError):  # kept by a process that may be gone as well
            return self._store.compare_set("why", "", text).decode()
        return text

    def _noted(self) -> str | None:
        with suppress(RuntimeError):
            if self._store.check(["why"]):
                return self._store.get("why").decode()
        return None


@contextmanager
def _meeting(what: str) -> Iterator[None]:
    """Be connected with the others while a call is going on, unless alone, or connected already."""
    global _now
    if _now is not _ALONE or not several():
        yield
        return
    _now = here = _Connected(*meet(what))
    try:
        yield
    except BaseException as error:
        here.leave(error)
        raise
    else:
        here.leave()
    finally:
        _now = _ALONE
