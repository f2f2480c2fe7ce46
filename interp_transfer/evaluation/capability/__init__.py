"""Capability: what an intervention costs elsewhere, in the tasks of the lm-evaluation-harness and off its distribution."""
