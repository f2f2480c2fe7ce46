"""ROUGE (Lin 2004), the overlap of two texts in words, pairs of words, or words in order, by the library rouge-score.

A word is a run of ASCII letters and digits; case does not count and words are not stemmed. The figure is the F-measure of
precision and recall, which is the same whichever text is called the reference.
"""

from collections.abc import Sequence

from interp_transfer.extras import require

ROUGE = ("rouge1", "rouge2", "rougeL")
"""Words, pairs of words, the longest common subsequence of words."""


def rouge(first: Sequence[str], second: Sequence[str]) -> dict[str, list[float]]:
    """Return the ROUGE scores of texts with their counterparts, 0 to 1, by name of the score.

    A text without a word, or without two for ``rouge2``, scores 0, even against itself.

    Args:
        first: texts.
        second: one counterpart of each.

    Raises:
        ValueError: for lists of different lengths.
        ImportError: if rouge-score is not installed.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} texts and {len(second)} counterparts: give as many")
    scorer = require("rouge_score.rouge_scorer", "rouge", "ROUGE").RougeScorer(list(ROUGE), use_stemmer=False)
    scores = [scorer.score(a, b) for a, b in zip(first, second, strict=True)]
    return {name: [float(score[name].fmeasure) for score in scores] for name in ROUGE}
