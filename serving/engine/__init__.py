"""Decodes and classifies images: models, batches, threads. Nothing here knows HTTP."""
