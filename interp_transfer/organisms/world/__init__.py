"""The micro-world: a seeded grammar that makes every synthetic prompt and judges every answer."""

from interp_transfer.organisms.world.grammar import WORLD_VERSION, World, load_world
from interp_transfer.organisms.world.question import Family, Question, Ruling

__all__ = ["WORLD_VERSION", "Family", "Question", "Ruling", "World", "load_world"]
