"""What measures the experiments: a module for each kind, with `measure` (rows of one case) and `verdict` (on all of them)."""
