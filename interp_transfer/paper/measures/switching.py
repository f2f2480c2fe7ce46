"""The safety switch and its neighbours (sections 6 and J): activations of a model in its fine-tune, or the other way round."""

from collections.abc import Mapping
from typing import Any

from interp_transfer.paper.charts import Chart, Headline, dots, headline_of, two_rows
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, grade, value_of, value_range
from interp_transfer.paper.setup import Setup, shares
from interp_transfer.studies.options import TaskOptions
from interp_transfer.studies.switch import switch_study
from interp_transfer.studies.switch_result import AUTOENCODER, DIRECT, MAPPED, Switch

WEIGHTS = "weights: "
HALF = 0.5
ALIKE = 0.8


def measure(
    setup: Setup,
    subject: str,
    base: str,
    direction: str = "to_base",
    tuned: str | None = None,
    lora: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Row]:
    """Measure a row for each way to switch: what it recovers of the donor's behaviour, what it costs and what it takes.

    Args:
        setup: edition, n and seed.
        subject: what fine-tuning brought.
        base: name of the base model.
        direction: "to_base" or "to_tuned".
        tuned: name of the fine-tune; the registered one unless given.
        lora: rank of a LoRA that is compared.
        options: further options of `switch_study`.
    """
    result = switch_study(
        "switch",
        base,
        tuned,
        subject=subject,
        direction=direction,
        how=TaskOptions(edition=setup.edition),
        lora=lora,
        n=setup.n,
        seed=setup.seed,
        progress=False,
        **(options or {}),
    )
    return rows_of_ways(result)


def rows_of_ways(result: Switch) -> list[Row]:
    """A row for each way to switch."""
    rows: list[Row] = []
    for name, way in result.ways.items():
        size = None if way.parameters is None else f"{way.parameters / result.host_parameters:.2%}"
        row: dict[str, Any] = {"way": name.replace("_", " "), "site": way.site or "-"}
        row |= {**shares(way.judged), "recovered": result.recovered(name)}
        row |= {"clean KL": way.judged.cost, "parameters": size or "second model"}
        losses = [result.ways["unswitched"].skills[s].value - r.value for s, r in way.skills.items()]
        rows.append(row | {"most that a skill loses": max(losses) if losses else None})
    return rows


def verdict(cases: RowsByCase) -> Verdict:
    """Whether mapped activations switch as direct ones do, with few parameters."""
    details, good, embedded, few = [], 0, [], []
    for case, rows in cases.items():
        by_way = {str(row["way"]): row for row in rows}
        summary = [
            f"{way} {value_of(by_way[way], 'success'):.3f} ({by_way[way]['parameters']})"
            for way in (DIRECT, MAPPED, AUTOENCODER)
        ]
        direct, best = (value_of(by_way[way], "success") for way in (DIRECT, MAPPED))
        good += best >= ALIKE * direct > 0
        details.append(f"{case}: {', '.join(summary)}; unswitched {value_of(by_way['unswitched'], 'success'):.3f}")
        done = {way: value_of(row, "success") for way, row in by_way.items() if way.startswith(WEIGHTS)}
        embedded += [x for way, x in done.items() if way.endswith("embeddings")]
        parts = [way.removeprefix(WEIGHTS) for way, x in done.items() if x >= ALIKE * direct and not way.endswith("embeddings")]
        few += ["all blocks" if part == "blocks" else part for part in parts[:1]]
    sentence = (
        f"A small map does at least {ALIKE:.0%} of what the second model's activations do in {good} of {len(cases)} cases."
    )
    alone = bool(embedded) and max(embedded) >= HALF
    if embedded:
        enough = f"those of {' and '.join(dict.fromkeys(few))} are enough" if few else "no blocks' weights are enough"
        sentence += f" Of the donor's weights {enough}; the embeddings' alone do it on {value_range(embedded)} of the prompts."
    agrees = grade(good, len(cases))
    return Verdict("in part" if agrees == "yes" and alone else agrees, sentence, tuple(details))


def chart(cases: RowsByCase) -> Chart:
    """Success by way to switch."""
    names = {DIRECT: "second model's activations", MAPPED: "mapped activations", AUTOENCODER: AUTOENCODER}
    names |= {"vector": "vector alone", f"{WEIGHTS}embeddings": "weights of the embeddings"}
    names |= {name: name for name in ("shuffled", "random", "unswitched")}
    return dots(cases, "share of prompts switched", "success", "way", names)


def headline(cases: RowsByCase) -> Headline:
    """Success of mapped activations, and of the second model's own."""
    pick = two_rows("success", "way", MAPPED, DIRECT)
    return headline_of(cases, "by mapped activations", "by the donor's own", pick)
