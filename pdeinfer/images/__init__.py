"""Converts any image to the pixels that a network takes, and rejects expensive files before decoding them."""
