"""The tasks of the micro-world, where an oracle judges every answer exactly."""
