"""Prompts, the micro-world, tasks and the judges that need no model."""
