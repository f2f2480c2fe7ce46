"""Fixtures that the tests of commands share."""

from collections.abc import Callable

import pytest

from interp_transfer.cli.main import main
from tests.registered import cats, checkpoints, models, pairs_file, registered

__all__ = ["cats", "checkpoints", "models", "pairs_file", "registered"]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line: exit code, stdout and stderr."""

    def run(*argv: object) -> tuple[int, str, str]:
        code = main([str(arg) for arg in argv])
        return code, *capsys.readouterr()  # type: ignore[return-value]

    return run


@pytest.fixture
def refuses(call: Callable[..., tuple[int, str, str]]) -> Callable[..., None]:
    """Check that a command line is refused with one line on stderr that holds a hint, and nothing on stdout."""

    def check(hint: str, *argv: object) -> None:
        code, out, err = call(*argv)
        assert (code, out) == (2, ""), argv
        assert err.startswith("error: ") and err.count("\n") == 1, argv
        assert hint in err, argv

    return check
