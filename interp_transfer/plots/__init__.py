"""Plots: pure functions of frames and rows to plotly figures."""
