"""Models: the zoo of organisms, and the one place that loads any model."""
