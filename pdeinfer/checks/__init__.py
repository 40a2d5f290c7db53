"""Compares models with their original, with each other, and with labels."""
