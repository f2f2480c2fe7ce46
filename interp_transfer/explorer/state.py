"""What the explorer is set to: a prompt, what is added, how strongly and where, and how it is shown."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any

from interp_transfer.io import checked

LONGEST_PROMPT = 20_000
"""Characters of a prompt."""
MOST_TOKENS = 512
"""Tokens of a completion."""
STRONGEST = 1000.0
"""Largest strength, of either sign."""
VIEWS = ("models", "vectors")
"""Both models, unsteered and steered; or one model under the moved, the native and a random vector."""


@dataclass(frozen=True)
class State:
    """The settings of one run; a page sends all of them with each.

    Attributes:
        prompt: the text, or what the user of a chat says.
        example: number of the example that the prompt is, unchanged; None for a prompt that was written.
        chat: make the prompt a chat, which each model renders by its own template.
        item: name of what is added.
        strength: in units of the vector; 1.0 is the contrast's own difference.
        source_block: block of the source whose site the vector is extracted at; None leaves it where it is.
        target_block: the same for the target.
        positions: tokens at which the vector is added.
        view: one of `VIEWS`.
        colour: name of the reading that colours tokens, or "".
        max_new_tokens: length of completions.
    """

    prompt: str = ""
    example: int | None = None
    chat: bool = False
    item: str = ""
    strength: float | int = 1.0
    source_block: int | None = None
    target_block: int | None = None
    positions: str = "all"
    view: str = "models"
    colour: str = ""
    max_new_tokens: int = 40

    def __post_init__(self) -> None:
        """Reject what no page sends."""
        if not isfinite(self.strength) or abs(self.strength) > STRONGEST:
            raise ValueError(f"strength={self.strength}: give a number from -{STRONGEST:g} to {STRONGEST:g}")
        if not 1 <= self.max_new_tokens <= MOST_TOKENS:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}: give 1 to {MOST_TOKENS}")
        if len(self.prompt) > LONGEST_PROMPT:
            raise ValueError(f"the prompt has {len(self.prompt)} characters: shorten it to {LONGEST_PROMPT}")
        if self.view not in VIEWS:
            raise ValueError(f"view={self.view!r}: there are {', '.join(VIEWS)}")

    @classmethod
    def read(cls, plain: Any) -> "State":
        """Make the state of a message, which is not trusted.

        Raises:
            ValueError: for a field that is missing, unknown, of another type or out of range; and for half of a surrogate
                pair, which no tokenizer reads.
        """
        try:
            state = checked(cls, plain if isinstance(plain, Mapping) else {})
            state = replace(state, strength=float(state.strength))  # a page has one kind of number
            state.prompt.encode()
        except TypeError as error:
            raise ValueError(f"the page sent settings that are none: {error}") from None
        except UnicodeEncodeError:
            raise ValueError("the prompt holds half of a surrogate pair, which is no character: remove it") from None
        return state

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON stores them."""
        return asdict(self)
