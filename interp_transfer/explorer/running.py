"""Run a session in a thread, so that the next message can stop what the last one began."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from interp_transfer.explorer.session import Emit, Session


@dataclass(eq=False)
class Running:
    """A session's thread. There is one while something is generated, and none between.

    Attributes:
        session: what answers.
        emit: receives the events, in the thread.
    """

    session: Session
    emit: Emit
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _thread: threading.Thread | None = field(default=None, repr=False)

    def post(self, message: Any) -> None:
        """Take a message of a page: answer it, or begin a run, which stops the one before it."""
        kind = message.get("type") if isinstance(message, Mapping) else None
        if kind == "ping":
            self.emit({"type": "pong"})
        elif kind == "stop":
            self._stop.set()
        elif kind == "run":
            before, self._stop = self._thread, self._replaced()
            self._thread = threading.Thread(
                target=self._run, args=(message, before, self._stop), name="interp-transfer-explorer", daemon=True
            )
            self._thread.start()
        else:
            self.session.handle(message, self.emit)

    def close(self, seconds: float = 60) -> None:
        """Stop what is running, and wait for the end of its thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _replaced(self) -> threading.Event:
        self._stop.set()
        return threading.Event()

    def _run(self, message: Any, before: threading.Thread | None, stop: threading.Event) -> None:
        if before is not None:
            before.join()
        if not stop.is_set():
            self.session.handle(message, self.emit, stop.is_set)
