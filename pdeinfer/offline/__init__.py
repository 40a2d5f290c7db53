"""Classifies many images into one file: what may be stopped at any moment, and goes on where it was."""
