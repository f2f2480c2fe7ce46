"""Anonymous memory of this process: what it has for itself, without the pages of files that are mapped."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STATUS = Path("/proc/self/status")


def anonymous() -> int:
    """Bytes now."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon:"))
    return 1024 * int(line.split()[1])


class Peak:
    """The most that was seen while a watch was on.

    Attributes:
        bytes: so many.
    """

    def __init__(self) -> None:
        self.bytes = 0

    def look(self) -> None:
        """See what it is now."""
        self.bytes = max(self.bytes, anonymous())

    @contextmanager
    def watch(self, every: float = 0.02) -> Iterator[None]:
        """Look again and again, from a thread of its own; a look takes a fraction of a millisecond."""
        done = threading.Event()

        def looking() -> None:
            while not done.wait(every):
                self.look()

        thread = threading.Thread(target=looking)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.look()
