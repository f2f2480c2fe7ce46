"""Evaluation: measures, and conditions side by side."""
