"""Scoring whole splits: every item once, averages divided once."""
