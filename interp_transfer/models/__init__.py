"""Models: loading, identity, hook sites."""
