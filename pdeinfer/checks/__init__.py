"""Comparisons of models: with their original, with each other, and with labels."""
