"""From any image to the pixels that a network takes, and what is refused before it is decoded."""
