"""Sweeps: which settings to try, in which order, and what came of each."""
