"""Whether evaluation prompts occur in training data.

The paper's Table 21 names JailbreakBench as data of the refusal mapper, and JailbreakBench is also what the moved vector is
evaluated on; its section 4.3 says otherwise. Nothing here decides which is true. What is used is checked, and said.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Overlap:
    """One evaluation prompt that a training text meets.

    Attributes:
        prompt: the evaluation prompt.
        text: the training text that comes closest.
        share: of the prompt's word n-grams, how many the text holds; 1.0 if they are equal.
    """

    prompt: str
    text: str
    share: float


@dataclass(frozen=True, repr=False)
class ContaminationReport:
    """Which evaluation prompts training texts meet.

    Attributes:
        n_train: training texts looked at.
        n_eval: evaluation prompts looked at.
        exact: prompts that are a training text, case, white space and punctuation aside.
        near: other prompts of which one training text holds at least `threshold` of the word n-grams.
        ngram: words in an n-gram.
        threshold: share from which a prompt counts as near.
    """

    n_train: int
    n_eval: int
    exact: tuple[Overlap, ...]
    near: tuple[Overlap, ...]
    ngram: int
    threshold: float

    @property
    def found(self) -> bool:
        """Whether any evaluation prompt is met."""
        return bool(self.exact or self.near)

    @property
    def share(self) -> float:
        """Share of the evaluation prompts that are met."""
        return (len(self.exact) + len(self.near)) / self.n_eval if self.n_eval else 0.0

    def __repr__(self) -> str:
        of = f"{self.n_eval} evaluation prompts and {self.n_train} training texts"
        how = f"near: one text holds at least {self.threshold:.0%} of a prompt's word {self.ngram}-grams"
        if not self.found:
            return f"no contamination between {of} ({how})"
        met = len(self.exact) + len(self.near)
        worst = [f"{_short(o.prompt)!r} in {_short(o.text)!r} ({o.share:.0%})" for o in (*self.exact, *self.near)[:3]]
        return (
            f"contamination: {met} of {of} meet, {len(self.exact)} exactly and {len(self.near)} nearly ({how}); "
            f"for example {'; '.join(worst)}"
        )


def contamination(
    train_texts: Sequence[str], eval_prompts: Sequence[str], *, ngram: int = 3, threshold: float = 0.7
) -> ContaminationReport:
    """Find the evaluation prompts that training texts meet.

    Both are compared without templates: strip them first (`formats.instruction_of`), or every prompt shares the template's
    n-grams. Prompts of fewer than `ngram` words count only when they are equal to a text.

    Args:
        train_texts: what something was trained on.
        eval_prompts: what it is judged on; each counts once however often it is given.
        ngram: words in an n-gram.
        threshold: in (0, 1].

    Raises:
        ValueError: for a threshold or n-gram size that makes no sense, or a single string.
    """
    if isinstance(train_texts, str) or isinstance(eval_prompts, str):
        raise ValueError("contamination takes lists of texts and prompts, not a single string: put it in a list")
    if not 0 < threshold <= 1 or ngram < 1:
        raise ValueError(f"need 0 < threshold <= 1 and ngram >= 1, not threshold={threshold} and ngram={ngram}")
    prompts = {normalise(prompt): prompt for prompt in reversed(eval_prompts) if normalise(prompt)}
    grams = {key: _grams(key, ngram) for key in prompts}
    holders: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key, own in grams.items():
        for gram in own:
            holders[gram].append(key)
    exact: dict[str, str] = {}
    near: dict[str, tuple[float, str]] = {}
    for text in train_texts:
        plain = normalise(text)
        if plain in prompts:
            exact.setdefault(plain, text)
        hits = Counter(key for gram in _grams(plain, ngram) for key in holders.get(gram, ()))
        for key, count in hits.items():
            share = count / len(grams[key])
            if share >= threshold and share > near.get(key, (0.0, ""))[0]:
                near[key] = (share, text)
    order = [normalise(prompt) for prompt in dict.fromkeys(eval_prompts)]
    order = [key for key in dict.fromkeys(order) if key]
    return ContaminationReport(
        n_train=len(train_texts),
        n_eval=len(order),
        exact=tuple(Overlap(prompts[key], exact[key], 1.0) for key in order if key in exact),
        near=tuple(Overlap(prompts[key], near[key][1], near[key][0]) for key in order if key in near and key not in exact),
        ngram=ngram,
        threshold=threshold,
    )


def normalise(text: str) -> str:
    """Lower case, no punctuation, single spaces."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold().replace("_", " ")))


def _grams(plain: str, size: int) -> set[tuple[str, ...]]:
    words = plain.split()
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
