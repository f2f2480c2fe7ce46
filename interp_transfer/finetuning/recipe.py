"""The settings of a fine-tuning."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Settings of a training.

    Attributes:
        epochs: passes over the examples.
        learning_rate: peak of the cosine schedule.
        batch_size: sequences in a step.
        weight_decay: weight decay of AdamW, on matrices alone. Large (1.0) for small models from scratch: with little decay
            they memorise every prompt and fail on held-out wordings.
        beta2: beta2 of AdamW.
        warmup: share of the steps in which the rate rises.
        max_length: tokens of an example; longer ones are refused, not truncated: a truncated response would teach
            unfinished answers.
        seed: seed of the order of the examples, and of everything that is drawn.
        checkpoint_every: steps between two checkpoints.
    """

    epochs: float = 3.0
    learning_rate: float = 1e-3
    batch_size: int = 64
    weight_decay: float = 0.05
    beta2: float = 0.99
    warmup: float = 0.05
    max_length: int = 256
    seed: int = 0
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("epochs", "learning_rate", "batch_size", "max_length", "checkpoint_every"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of the steps, in [0, 1), not {self.warmup}")
