"""Two tiny models and their task, which the tests of searches share."""

from tests.registered import cats, checkpoints, models, pairs_file

__all__ = ["cats", "checkpoints", "models", "pairs_file"]
