"""What errors quote of others."""

import pytest

from interp_transfer.names import LONGEST, first_line, quoted


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


@pytest.mark.parametrize("text", ["x" * 10_000, "a\x1b[2J\ud800", "\x85\u2028"])
def test_what_is_quoted_is_short_and_can_be_printed(text: str) -> None:
    for shown in (first_line(ValueError(f"b{text}")), quoted(text), quoted([text])):
        assert len(shown) <= LONGEST + 10 and shown.isprintable()
    assert quoted("é") == "'é'"
