"""Mapping: from one model's activations to another's."""
