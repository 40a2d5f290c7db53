"""What the PDE layers of a model compute for an image, and how it is drawn."""
