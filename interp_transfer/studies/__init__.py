"""Studies: whole experiments, each a function and its result."""
