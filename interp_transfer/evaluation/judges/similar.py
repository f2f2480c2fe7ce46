"""Similarity in meaning of two completions of a prompt: the cosine of their sentence embeddings (Reimers and Gurevych 2019).

It is cheap and repeatable, and misses what an embedding does not represent: a "not", a number, an order of steps. Embeddings
are those of the library sentence-transformers, an optional extra.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from interp_transfer.evaluation.judges.opinion import Item, Opinion
from interp_transfer.extras import require
from interp_transfer.models.identity import weights_fingerprint
from interp_transfer.names import first_line

PORTION = 256
"""Number of pairs after which opinions are yielded, and stored."""


@dataclass(frozen=True)
class SimilarityJudge:
    """Cosine of the embeddings of a completion and its reference; high is similar.

    Two empty texts have similarity 1, an empty one and another 0.

    Attributes:
        encoder: a ``SentenceTransformer``.
        model: the encoder's name.
    """

    encoder: Any = field(repr=False)
    model: str
    name: str = "similarity"
    scale: str = "cosine of sentence embeddings, -1 to 1, high is alike"
    needs_reference: bool = True

    @property
    def identity(self) -> Mapping[str, Any]:
        """The encoder: its name and a hash of its weights."""
        return {"judge": "similarity/1", "model": self.model, "weights": weights_fingerprint(self.encoder)}

    def opinions(self, items: Sequence[Item]) -> Generator[tuple[int, Opinion], None, None]:
        """Yield opinions in portions. Both texts of a pair are embedded without the prompt."""
        for start in range(0, len(items), PORTION):
            part = items[start : start + PORTION]
            texts = [text for item in part for text in (item.completion, item.reference or "")]
            vectors = self.encoder.encode(texts, convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False)
            cosines = (vectors[::2].double() * vectors[1::2].double()).sum(dim=1).clamp(-1, 1).tolist()
            for offset, (item, cosine) in enumerate(zip(part, cosines, strict=True)):
                yield start + offset, _opinion(item, cosine)


def _opinion(item: Item, cosine: float) -> Opinion:
    one, other = item.completion.strip(), (item.reference or "").strip()
    if not one or not other:
        return Opinion(float(one == other), "both are empty" if one == other else "one of the two is empty")
    if cosine != cosine:
        return Opinion(None, "not a number: the embedding is not finite")
    return Opinion(float(cosine), "the same text" if one == other else "cosine of two texts")


def similarity_judge(model: str, *, device: str | None = None) -> SimilarityJudge:
    """Load a judge by a sentence-transformers model, such as "sentence-transformers/all-MiniLM-L6-v2".

    Args:
        model: hub name or local folder.
        device: where it runs; a GPU if there is one.

    Raises:
        ImportError: if sentence-transformers is not installed.
        ValueError: for a model that cannot be loaded.
    """
    library = require("sentence_transformers", "judges", "similarity")
    try:
        return SimilarityJudge(library.SentenceTransformer(model, device=device), model)
    except (OSError, ValueError, KeyError) as error:
        reason = first_line(error)
        raise ValueError(f"cannot load the sentence-transformers model {model!r}: {reason}; give its name or folder") from error
