"""Steering vectors: extraction, arithmetic, exchange formats."""
