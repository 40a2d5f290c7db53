"""Model packages: the folder, its card, and the bundled packages by name."""
