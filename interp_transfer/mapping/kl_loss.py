"""The KL loss: how the target's predictions change when a mapper's rows replace the activations at its site.

The squared error weights all directions equally. The blocks after the site do not: a small error in a direction that they read
costs more than a large one in a direction that they do not read. This loss is the divergence from the target to the target with
the mapped activations of the source at its site, at every token of fixed texts (teacher forcing).
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp_transfer.interventions.follow import SAME_TOKENS, follow
from interp_transfer.interventions.predictions import divergence, predicted
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.models.hooked_model import HookedModel, require_gradients
from interp_transfer.models.tokens import tokenize

HELD_OUT_TEXTS = 64
"""Maximum number of held-out texts after each epoch."""
TEXTS_PER_STEP = 4


class KLLoss:
    """The KL loss of a mapper on texts."""

    def __init__(
        self,
        models: tuple[HookedModel, HookedModel],
        assemble: Callable[[nn.Module], Mapper],
        texts: Sequence[str],
        judged: Bool[Tensor, " text"],
        strategy: str,
    ) -> None:
        """Tokenize the texts.

        Args:
            models: source and target.
            assemble: makes a mapper from the core that is being trained.
            texts: the texts that the pairs were collected from, in the same order.
            judged: which texts are held out.
            strategy: how tokens are paired.

        Raises:
            ValueError: for fewer texts than the pairs were collected from, conversations, or a quantized target.
        """
        require_gradients(models[1], "the KL loss")
        if len(texts) < len(judged) or not all(isinstance(text, str) for text in texts[: len(judged)]):
            raise ValueError(
                f"the pairs were collected from at least {len(judged)} texts, and {len(texts)} are given: give the very same "
                "plain texts, in the same order"
            )
        (self._source, self._target), self._assemble = models, assemble
        self._ids = tokenize(self._target, list(texts[: len(judged)]))
        self._strategy = None if strategy == SAME_TOKENS else strategy
        self._train, self._judge = ((judged == held).nonzero()[:, 0].tolist() for held in (False, True))

    def batches(self, seed: int) -> Iterator[list[int]]:
        """Yield the numbers of the texts of each step, without end, in random order."""
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(self._train), generator=generator).tolist()
            for start in range(0, len(order), TEXTS_PER_STEP):
                yield [self._train[i] for i in order[start : start + TEXTS_PER_STEP]]

    def loss(self, core: nn.Module, texts: Sequence[int]) -> Float[Tensor, ""]:
        """Return the divergence on some texts in nats per token; gradients flow into the core's parameters."""
        mapper, ids = self._assemble(core), [self._ids[i] for i in texts]
        mapped = follow(self._source, mapper.source.site, mapper.target.site, mapper, strategy=self._strategy)
        lengths = torch.tensor([len(own) for own in ids])
        real = torch.arange(int(lengths.max())) < lengths[:, None]
        with torch.no_grad():
            before = predicted(self._target, ids, real)
        return divergence(before, predicted(self._target, ids, real, mapped), before.exp()).mean()

    @torch.no_grad()
    def held_out(self, core: nn.Module) -> float:
        """Return the divergence on the held-out texts."""
        chosen = self._judge[:HELD_OUT_TEXTS]
        batches = [chosen[start : start + TEXTS_PER_STEP] for start in range(0, len(chosen), TEXTS_PER_STEP)]
        weights = [sum(len(self._ids[i]) for i in batch) for batch in batches]
        losses = [float(self.loss(core, batch)) * weight for batch, weight in zip(batches, weights, strict=True)]
        return sum(losses) / sum(weights)
