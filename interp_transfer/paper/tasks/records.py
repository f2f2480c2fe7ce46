"""What the paper says of its models and trainings, as plain values; paper.toml holds them.

Numbers are those printed in "Activation Space Interventions Can Be Transferred Between Large Language Models" (arXiv
2503.04429); None stands where it prints none.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAPER: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("paper.toml").read_text("utf-8"))


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
        batch_size: examples for each update.
        template: what prompts are put into.
        weight_decay: of AdamW; None where not printed.
        max_length: tokens of prompt and response together; None where not printed.
        epochs: passes over the training data; None where not printed.
        note: what else is known.
    """

    learning_rate: float
    batch_size: int
    template: str
    weight_decay: float | None = None
    max_length: int | None = None
    epochs: int | None = None
    note: str = ""
