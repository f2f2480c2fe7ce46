"""Micro-models with a known ground truth: the world they live in, their tasks, and how they are built."""
