"""Two tiny models, their task and a sparse autoencoder, which the tests of this folder share."""

from tests.registered import cats, checkpoints, models, pairs_file
from tests.tiny_sae import sae

__all__ = ["cats", "checkpoints", "models", "pairs_file", "sae"]
