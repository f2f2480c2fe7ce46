"""English texts that need no download."""

import pytest

from interp_transfer.prompts.english import WORDS, english_texts


def test_english_is_plain_and_always_the_same() -> None:
    texts = english_texts(100)
    assert texts == english_texts(100) and len(set(texts)) == 100
    assert all(WORDS // 2 <= len(text.split()) <= WORDS for text in texts)
    with pytest.raises(ValueError, match="there are"):
        english_texts(10**6)
    assert 200 < len(english_texts(10**6, at_most=True)) < 10**6
