"""Intervened models outside this process: weights with the intervention in them, an HTTP server, Inspect."""
