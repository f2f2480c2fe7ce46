"""Steering: vectors from contrasts, and how hard to steer."""
