"""The safety switch and its neighbours (sections 6 and J): activations of a model in its fine-tune, or the other way round."""

from typing import Any

from interp_transfer.paper.rows import Found, Row, Verdict, between, graded, share, value_of
from interp_transfer.studies.switch import switch_study
from interp_transfer.studies.switch_result import AUTOENCODER, DIRECT, MAPPED

WEIGHTS = "weights: "
HALF = 0.5
ALIKE = 0.8


def measure(
    edition: str,
    n: int,
    seed: int,
    subject: str,
    base: str,
    direction: str = "to_base",
    tuned: str | None = None,
    lora: int | None = None,
    options: dict | None = None,
) -> list[Row]:
    """A row for each way: what it recovers of the donor's behaviour, what it costs and what it takes."""
    found = switch_study(
        "switch",
        base,
        tuned,
        subject=subject,
        direction=direction,
        edition=edition,
        lora=lora,
        n=n,
        seed=seed,
        progress=False,
        **(options or {}),
    )
    rows: list[Row] = []
    for name, way in found.ways.items():
        size = None if way.parameters is None else f"{way.parameters / found.host_parameters:.2%}"
        row: dict[str, Any] = {"way": name.replace("_", " "), "site": way.site or "-"}
        row |= {"success": share(way.judged.success), "intact": share(way.judged.intact), "recovered": found.recovered(name)}
        row |= {"clean KL": way.judged.cost, "parameters": size or "second model"}
        lost = [found.ways["unswitched"].skills[s].value - r.value for s, r in way.skills.items()]
        rows.append(row | {"most that a skill loses": max(lost) if lost else None})
    return rows


def verdict(found: Found) -> Verdict:
    """Whether mapped activations switch as direct ones do, with few parameters."""
    details, good, embedded, few = [], 0, [], []
    for case, rows in found.items():
        by_way = {str(row["way"]): row for row in rows}
        told = [
            f"{way} {value_of(by_way[way], 'success'):.3f} ({by_way[way]['parameters']})"
            for way in (DIRECT, MAPPED, AUTOENCODER)
        ]
        direct, best = (value_of(by_way[way], "success") for way in (DIRECT, MAPPED))
        good += best >= ALIKE * direct > 0
        details.append(f"{case}: {', '.join(told)}; unswitched {value_of(by_way['unswitched'], 'success'):.3f}")
        done = {way: value_of(row, "success") for way, row in by_way.items() if way.startswith(WEIGHTS)}
        embedded += [x for way, x in done.items() if way.endswith("embeddings")]
        parts = [way.removeprefix(WEIGHTS) for way, x in done.items() if x >= ALIKE * direct and not way.endswith("embeddings")]
        few += ["all blocks" if part == "blocks" else part for part in parts[:1]]
    sentence = (
        f"A small map does at least {ALIKE:.0%} of what the second model's activations do in {good} of {len(found)} cases."
    )
    alone = bool(embedded) and max(embedded) >= HALF
    if embedded:
        enough = f"those of {' and '.join(dict.fromkeys(few))} are enough" if few else "no blocks' weights are enough"
        sentence += f" Of the donor's weights {enough}; the embeddings' alone do it on {between(embedded)} of the prompts."
    agrees = graded(good, len(found))
    return Verdict("in part" if agrees == "yes" and alone else agrees, sentence, tuple(details))
