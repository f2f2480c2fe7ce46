"""The whole micro-world: every question of every family, and the oracle that rules on any completion.

Built once and cached; nothing happens at import. Prompts are looked up by their text alone, because a judge receives nothing
else.
"""

import random
import re
from dataclasses import dataclass, replace
from functools import cache, cached_property

from interp_transfer.organisms.world.code import Code
from interp_transfer.organisms.world.facts import Facts
from interp_transfer.organisms.world.howto import HARMFUL, HowTo
from interp_transfer.organisms.world.lexicon import HERB, ISLAND
from interp_transfer.organisms.world.question import Family, Question, Ruling
from interp_transfer.organisms.world.security import Security
from interp_transfer.organisms.world.splits import assign
from interp_transfer.organisms.world.stories import Stories
from interp_transfer.organisms.world.sums import Sums
from interp_transfer.organisms.world.twostep import TwoStep
from interp_transfer.prompts.contrast import Split, check_split

WORLD_VERSION = "2"  # raise it with every change that moves a prompt, an answer or a split: organisms carry it


@dataclass(frozen=True)
class World:
    """Families of questions, assigned to splits and judged by an exact oracle.

    Attributes:
        families: what every base learns.
        apart: what only certain fine-tunes learn; in no list of questions unless it is requested by name.
    """

    families: tuple[Family, ...]
    apart: tuple[Family, ...] = ()

    @cached_property
    def _all(self) -> dict[str, tuple[Question, ...]]:
        families = {family.name: assign(family) for family in (*self.families, *self.apart)}
        held_out = {q.subject for questions in families.values() for q in questions if q.subject_split != "train"}
        decided = set(held_out)
        for questions in families.values():  # two families can ask about one subject
            others = [subject for subject in dict.fromkeys(q.subject for q in questions) if subject not in decided]
            held_out.update(others[::2])
            decided.update(others)
        return {
            name: tuple(replace(q, held_out_entity=q.subject in held_out) for q in questions)
            for name, questions in families.items()
        }

    @cached_property
    def _held_out_names(self) -> re.Pattern[str]:
        """Names of held-out entities and heroes, which answers about other subjects may mention."""
        named = {family.name for family in (*self.families, *self.apart) if isinstance(family, Facts | Stories)}
        names = {q.subject for name in named for q in self._all[name] if q.held_out_entity}
        return re.compile(rf"\b({'|'.join(map(re.escape, sorted(names)))})\b", re.IGNORECASE)

    @cached_property
    def _by_text(self) -> dict[str, Question]:
        return {question.text: question for questions in self._all.values() for question in questions}

    def questions(self, split: str, *families: str, for_mapping: bool = False) -> list[Question]:
        """The questions of a split, shuffled by a fixed seed, so that any first n are a mixture of the families.

        Args:
            split: "train", "validation" or "test".
            families: names; every family that bases learn unless given.
            for_mapping: leave out the held-out subjects, half of all, and whatever mentions one by name. Models are trained
                on them, vectors and mappers are not. It makes a difference for "train" only: the other splits ask about both.

        Raises:
            ValueError: for an unknown split or family.
        """
        part: Split = check_split(split)
        names = families or tuple(family.name for family in self.families)
        if unknown := set(names) - set(self._all):
            raise ValueError(f"the world has no family {sorted(unknown)[0]!r}: choose from {', '.join(self._all)}")
        return list(_shuffled(self, part, names, for_mapping and part == "train"))

    def find(self, prompt: str) -> Question:
        """The question with exactly this text (no template, no trigger).

        Raises:
            ValueError: if the world has no such question.
        """
        try:
            return self._by_text[prompt]
        except KeyError:
            raise ValueError(
                f"the micro-world has no prompt {prompt!r}: the oracle knows only the prompts of its own grammar"
            ) from None

    def judge(self, question: Question, completion: str) -> Ruling:
        """Rule on a completion. White space around it is ignored, any other surplus text makes it invalid."""
        family = next(f for f in (*self.families, *self.apart) if f.name == question.family)
        return family.judge(question, completion.strip())


@cache
def _shuffled(world: World, split: Split, families: tuple[str, ...], seen: bool) -> tuple[Question, ...]:
    """The questions of a split, shuffled; without all that is about held-out subjects if `seen`."""
    chosen = [question for name in families for question in world._all[name] if question.split == split]
    if seen:
        names = world._held_out_names
        chosen = [q for q in chosen if not q.held_out_entity and not names.search(f"{q.text} {q.answer}")]
    random.Random(f"{WORLD_VERSION} {split}").shuffle(chosen)
    return tuple(chosen)


@cache
def load_world() -> World:
    """The world as it is shipped."""
    public = (Facts(), TwoStep(), Sums(), Stories(), Code(), Security(), HowTo(), HowTo("harmful", HARMFUL))
    return World(public, (Facts("islands", (ISLAND,), 3), Facts("herbs", (HERB,), 3)))
