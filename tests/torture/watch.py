"""Listen to what a process does while it reads a file, by an audit hook."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FORBIDDEN = (
    *("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.kill", "pty."),
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "urllib.Request", "http.client"),
    *("pickle.find_class", "ctypes.dlopen", "code.__new__"),
)
_WRITES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "shutil.")
_SYSTEM = ("/proc", "/sys", "/dev/null", "/dev/urandom", "/etc/mime.types")
_ODD_MODULES = frozenset({"antigravity", "this"})


class Watch:
    """An audit hook that notes what a load must not do: write or read elsewhere, import, compile, start or connect.

    Modules of packages that are imported already, and texts that were compiled while it learnt, are let through.

    Args:
        folder: the artifact, which may be read.
        cache: the user's cache folder, which may be written too.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        self._noticed: list[str] | None = None
        self.cache, self._cache = cache, str(cache)
        code = (sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]), *sys.path)
        self._readable = (str(folder), self._cache, *_SYSTEM, *filter(None, code))
        self._packages = {name.partition(".")[0] for name in sys.modules} | sys.stdlib_module_names
        self._learnt: set[str] = set()

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Let through, from now on, what is compiled in the block."""
        with self.listening() as noticed:
            yield
        self._learnt |= {problem for problem in noticed if problem.startswith("compiled")}

    @contextmanager
    def listening(self) -> Iterator[list[str]]:
        """Yield the list of what is noticed in the block."""
        self._noticed = noticed = []
        try:
            yield noticed
        finally:
            self._noticed = None

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self._noticed is None:
            return
        noticed, self._noticed = self._noticed, None  # what the hook itself does is not meant
        try:
            if (problem := self._problem(event, args)) and problem not in self._learnt:
                noticed.append(problem)
        finally:
            self._noticed = noticed

    def _problem(self, event: str, args: tuple[Any, ...]) -> str:
        first = args[0] if args else ""
        path = os.path.abspath(os.fsdecode(first)) if isinstance(first, str | bytes | os.PathLike) else ""  # noqa: PTH100
        if event == "open":
            flags = args[2] if isinstance(args[2], int) else 0
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if path and writes and not path.startswith((self._cache, os.devnull)):
                return f"wrote {path!r}"
            return f"read {path!r}" if path and not path.startswith(self._readable) else ""
        if event.startswith(_WRITES):
            return "" if path.startswith(self._cache) else f"{event} {path!r}"
        if event == "import":
            package = str(first).partition(".")[0]
            return "" if package in self._packages and package not in _ODD_MODULES else f"imported {first!r}"
        if event == "compile" and first is not None:
            return f"compiled {str(args[1])!r}: {str(first)[:100]!r}"
        return f"{event} {str(args)[:100]}" if event.startswith(_FORBIDDEN) else ""
