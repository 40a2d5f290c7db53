"""Trains the networks that pdeinfer exports and serves."""
