"""Steering transfer (figures 3 to 6): the whole pipeline, with the moved vector, the native one and every baseline."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from interp_transfer.evaluation.evaluator import evaluator
from interp_transfer.paper.charts import Chart, Headline, dots, headline_of, two_rows
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, estimate_of, value_of
from interp_transfer.paper.setup import UNSEEN, MappedModels, condition_row, of_group
from interp_transfer.search.strengths import judge_searched
from interp_transfer.stats import MARGIN, Estimate
from interp_transfer.studies.run import run
from interp_transfer.vectors.vector import SteeringVector

DIFFERENCE = "moved less native"
WORDS = {True: "equivalent", False: "apart", None: "not decided"}
CONTROLS = (
    "unsteered",
    "random",
    "random in span",
    "wrong contrast",
    "shuffled",
    "untrained",
    "mean ablated",
)
"""Conditions that a moved vector has to be above; pairs that are shuffled within texts keep what a text is about."""
SUMMED = {
    "yes": f"the moved vector is above every control and as good as the native one, within {MARGIN:g}",
    "in part": "the moved vector is above every control, and not shown to be as good as the native one",
    "no": "a control reaches the moved vector",
    "cannot tell": "a control reaches the native vector",
}
"""What a verdict on a case says."""
SAID = {"yes": "agrees", "in part": "agrees in part", "no": "does not agree", "cannot tell": "cannot tell"}


def measure(setup: MappedModels) -> list[Row]:
    """Measure a row for each condition at its fair strength; moved and random at strength 1; and the paired difference.

    These are on prompts about what no text of the mapper mentions. Two rows of moved and native on the other prompts follow.
    """
    with TemporaryDirectory() as folder:
        return _measure(setup, Path(folder) / "run")


def _measure(setup: MappedModels, folder: Path) -> list[Row]:
    result = run(
        setup.task,
        setup.source.name,
        setup.target.name,
        mapper=setup.kind,
        settings=setup.settings,
        alignment=setup.strategy,
        source_site=setup.given_sites[0],
        target_site=setup.given_sites[1],
        n=min(setup.n, len(setup.task.prompts("test"))),
        seed=setup.seed,
        directions=setup.directions,
        seeds=setup.seeds,
        variants=False,
        side_effects=False,
        out=folder,
        progress=False,
    )
    rows = [condition_row(judged, condition=name.replace("_", " ")) for name, judged in result.conditions.items()]
    for name in ("moved", "random"):
        plain = result.details["at_strength_one"][name]
        figures = {figure: _share(plain[figure]) for figure in ("success", "intact")}
        kl = Estimate(plain["clean_kl"], **plain["clean_kl_interval"])
        rows.append({"condition": f"{name}, at strength 1", "strength": "1", **figures, "clean KL": kl})
    paired = result.details["moved_against_native"]
    differences = {what: Estimate(*(d[k] for k in ("difference", "low", "high", "n"))) for what, d in paired.items()}
    words = ", ".join(f"{what}: {WORDS[d['equivalent']]}" for what, d in paired.items())
    rows.append({"condition": f"{DIFFERENCE} ({words})", "strength": "-", **differences, "clean KL": None})
    seen = _on_seen(setup, SteeringVector.load(folder / "moved.safetensors"))
    return [{**row, "mapper": setup.described if row["condition"] == "moved" else None} for row in rows + seen]


def _on_seen(setup: MappedModels, moved: SteeringVector) -> list[Row]:
    """Moved and native on the prompts that the other rows leave out."""
    task, target = of_group(setup.whole_task, UNSEEN.__ne__), setup.target
    n = min(setup.n, len(task.prompts("test")))
    if task is setup.whole_task or not n:
        return []
    test = evaluator(target.model, task, "test", n=n, seed=setup.seed)
    judged = judge_searched(target.validation, test, {"moved": moved, "native": target.vector}, progress=False)
    return [condition_row(each, condition=f"{name}, entities in the mapper's texts") for name, each in judged.items()]


def _share(plain: Mapping[str, Any]) -> Estimate:
    return Estimate(plain["rate"], plain["low"], plain["high"], plain["n"])


def _points(difference: Estimate) -> str:
    return f"{100 * difference.value:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


def verdict(cases: RowsByCase) -> Verdict:
    """Whether the moved vector does what the native one does, above every control.

    A case agrees if the moved vector's intact answers are above every control's, lower end against upper end, and the moved
    vector is shown to be as good as the native one in success and intact; in part if only the first holds. It does not agree if
    a control reaches the moved vector. Nothing can be told if a control reaches the native vector.
    """
    answers, details = [], []
    for case, rows in cases.items():
        by_name = {str(row["condition"]): row for row in rows}
        native, moved = (estimate_of(by_name[name], "intact") for name in ("native", "moved"))
        controls = {name: estimate_of(by_name[name], "intact") for name in CONTROLS if name in by_name}
        apart = next(row for name, row in by_name.items() if name.startswith(DIFFERENCE))
        words = dict(part.split(": ") for part in str(apart["condition"]).partition("(")[2].rstrip(")").split(", "))
        reaching = [name for name, control in controls.items() if control.high >= moved.low]
        if any(control.high >= native.low for control in controls.values()):
            answers.append("cannot tell")
        elif reaching:
            answers.append("no")
        else:
            answers.append("yes" if all(word == WORDS[True] for word in words.values()) else "in part")
        shown = ", ".join(f"{name} {value_of(by_name[name], 'intact'):.3f}" for name in ("moved", "native", *controls))
        between = ", ".join(f"{what} {_points(estimate_of(apart, what))}, {word}" for what, word in words.items())
        reached = f"; reached by {', '.join(reaching)}" if reaching else ""
        details.append(f"{case}: {SAID[answers[-1]]}{reached}. Intact: {shown}; moved less native in points: {between}")
    each = [f"in {answers.count(a)} of {len(cases)} cases {words}" for a, words in SUMMED.items() if a in answers]
    sentence = f"I{'; '.join(each).removeprefix('i')}."
    told = [answer for answer in answers if answer != "cannot tell"]
    return Verdict(told[0] if len(set(told)) == 1 else "in part" if told else "cannot tell", sentence, tuple(details))


def chart(cases: RowsByCase) -> Chart:
    """Intact answers under the moved vector, the native one and the usual controls."""
    names = {name: name.replace(" ", "_") for name in ("unsteered", "random", "wrong contrast", "shuffled", "moved", "native")}
    return dots(cases, "intact answers", "intact", "condition", names)


def headline(cases: RowsByCase) -> Headline:
    """Success of the moved vector, and of the native one."""
    pick = two_rows("success", "condition", "moved", "native")
    return headline_of(cases, "success of the moved vector", "native vector", pick)
