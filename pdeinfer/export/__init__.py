"""Exports a trained Keras network as a model package, and proves the exported files equal to the network."""

from pdeinfer.export.exporter import export_package
from pdeinfer.export.proof import TEST_IMAGES, verify_package
from pdeinfer.export.rules import broken_fields_rules, broken_rules
from pdeinfer.export.triton import export_to_triton

__all__ = [
    "TEST_IMAGES",
    "broken_fields_rules",
    "broken_rules",
    "export_package",
    "export_to_triton",
    "verify_package",
]
