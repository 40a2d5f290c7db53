"""Model packages: the folder, its card, and the bundled ones by name."""
