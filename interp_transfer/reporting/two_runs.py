"""Compare the outcomes of two runs of one task.

Outcomes on prompts that both runs judged are compared prompt by prompt (`stats.paired_difference`). Two runs with the same seed
and n share all prompts; two with different n share some, and ``LEAST`` of them are enough. With fewer, shares are compared as
if prompts were independent (`stats.unpaired_difference`). All differences are computed from `completions.json`, so of several
random draws the first is compared. p-values are exact (McNemar's test, Fisher's where prompts are not paired) and adjusted for
the number of comparisons by Holm's method.

Runs of different tasks, or of different directions of one, are refused: success has another meaning in each.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scipy.stats import binomtest, fisher_exact

from interp_transfer.reporting.run_folder import RunFolder
from interp_transfer.stats import Difference, paired_difference, unpaired_difference

LEAST = 50
"""Number of shared prompts from which outcomes are compared prompt by prompt if a run has others too."""
MEASURES = ("success", "intact")


@dataclass(frozen=True)
class Compared:
    """One share in both runs.

    Attributes:
        condition: its name.
        measure: success or intact.
        difference: A minus B.
        p: exact p-value of the hypothesis that the two are equal.
        adjusted: the p-value adjusted by Holm's method for all comparisons of the two runs.
    """

    condition: str
    measure: str
    difference: Difference
    p: float
    adjusted: float


@dataclass(frozen=True)
class TwoRuns:
    """Two runs of one task, and which of their prompts are the same.

    Attributes:
        a: the first run.
        b: the second run.
        common: indices in a and b of the prompts that both judged.
        compared: the shares that both have.
    """

    a: RunFolder
    b: RunFolder
    common: tuple[tuple[int, int], ...]
    compared: tuple[Compared, ...]

    @property
    def paired(self) -> bool:
        """Whether outcomes are compared prompt by prompt."""
        return _enough(self.common, self.a, self.b)


def compare_runs(a: RunFolder, b: RunFolder) -> TwoRuns:
    """Match the prompts of two runs, and compare all shares that both have.

    Raises:
        ValueError: when their tasks or directions differ.
    """
    tasks = [(run.result["task"], run.result.get("direction")) for run in (a, b)]
    if tasks[0] != tasks[1]:
        first, second = (task if direction is None else f"{task}, {direction}" for task, direction in tasks)
        raise ValueError(f"runs of two tasks ({first}; {second}), whose successes are different things: give two of one task")
    common = tuple(common_prompts(a.completions["prompts"], b.completions["prompts"]))
    pairs = common if _enough(common, a, b) else None
    differences: list[tuple[str, str, Difference, float]] = []
    parts = (a.result["conditions"], b.result["conditions"], b.completions["conditions"])
    for name in (name for name in a.completions["conditions"] if all(name in part for part in parts)):
        for measure in MEASURES:
            one, other = ([bool(c[measure]) for c in run.completions["conditions"][name]] for run in (a, b))
            if pairs:
                one, other = [one[i] for i, _ in pairs], [other[j] for _, j in pairs]
            if one and other:
                difference = paired_difference(one, other) if pairs else unpaired_difference(one, other)
                differences.append((name, measure, difference, mcnemar(one, other) if pairs else fisher(one, other)))
    adjusted = holm([p for *_, p in differences])
    return TwoRuns(a, b, common, tuple(Compared(*row, p) for row, p in zip(differences, adjusted, strict=True)))


def common_prompts(one: Sequence[str], other: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Indices of the same texts in both; repeated texts are matched in order."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, prompt in enumerate(other):
        places[prompt].append(place)
    for place, prompt in enumerate(one):
        if places[prompt]:
            yield place, places[prompt].pop(0)


def _enough(common: Sequence[tuple[int, int]], a: RunFolder, b: RunFolder) -> bool:
    sizes = [len(run.completions["prompts"]) for run in (a, b)]
    return bool(common) and (len(common) >= LEAST or sizes == [len(common)] * 2)


def mcnemar(one: Sequence[bool], other: Sequence[bool]) -> float:
    """Return the exact p-value for equal shares on the same prompts (of those that differ, each direction is as likely)."""
    first = sum(a and not b for a, b in zip(one, other, strict=True))
    second = sum(b and not a for a, b in zip(one, other, strict=True))
    return float(binomtest(first, first + second).pvalue) if first + second else 1.0


def fisher(one: Sequence[bool], other: Sequence[bool]) -> float:
    """Return the exact p-value for equal shares on different prompts."""
    table = [[sum(outcomes), len(outcomes) - sum(outcomes)] for outcomes in (one, other)]
    return float(fisher_exact(table)[1])  # pyright: ignore[reportArgumentType]


def holm(values: Sequence[float]) -> list[float]:
    """Adjust p-values so that a bound on them bounds the chance of any false difference (Holm 1979)."""
    adjusted, highest = [1.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = highest
    return adjusted
