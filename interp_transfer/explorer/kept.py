"""Completions of a run that was made before, for models that are too large to be explored live."""

from dataclasses import dataclass
from pathlib import Path

from interp_transfer.escape import visible
from interp_transfer.reporting.completions import SIDE_BY_SIDE, cut
from interp_transfer.reporting.run_folder import CompletionsJson, read_run

PROMPTS = 50
"""Prompts of a run that are listed."""
LONGEST = 4000
"""Characters of a completion that are shown."""


@dataclass(frozen=True)
class KeptCompletions:
    """Completions of a run folder.

    Attributes:
        name: of the folder.
        completions: as the folder has them.
    """

    name: str
    completions: CompletionsJson

    @classmethod
    def read(cls, folder: Path) -> "KeptCompletions":
        """Read those of a folder.

        Raises:
            ValueError: for a folder that is none of a run, or damaged.
        """
        return cls(folder.name, read_run(folder).completions)

    @property
    def prompts(self) -> list[str]:
        """The first prompts."""
        return self.completions["prompts"][:PROMPTS]

    def texts(self, index: int) -> dict[str, str]:
        """The completions of one prompt by condition, the main ones.

        Raises:
            ValueError: for a prompt that is not there.
        """
        if not 0 <= index < len(self.prompts):
            raise ValueError(f"there is no prompt {index}: there are {len(self.prompts)}")
        conditions = self.completions["conditions"]
        names = [name for name in SIDE_BY_SIDE if name in conditions] or list(conditions)[:4]
        return {visible(name): visible(cut(conditions[name][index]["completion"], LONGEST)) for name in names}
