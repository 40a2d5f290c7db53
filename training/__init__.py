"""Training: `python -m training.run` makes the networks that pdeinfer exports and serves."""
