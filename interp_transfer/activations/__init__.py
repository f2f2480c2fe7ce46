"""Activations: which tokens, and what a model holds there."""
