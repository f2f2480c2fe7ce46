"""Interventions: what is done to activations, where, and to which tokens."""
