"""What errors quote of others."""

import pytest

from interp_transfer.names import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n  no file\n(see the manual)"), "no file"),
        (AssertionError(), "AssertionError"),
        (OSError(" \n"), "OSError"),
        (KeyError("width"), "'width'"),
    ],
)
def test_the_first_line_of_an_error_is_its_text_or_its_type(error: Exception, line: str) -> None:
    assert first_line(error) == line
