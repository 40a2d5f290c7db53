"""From a trained Keras network to a model package: ONNX, SavedModel, and the proof that they are equal."""

from pdeinfer.export.exporter import export_package
from pdeinfer.export.proof import TEST_IMAGES, verify_package
from pdeinfer.export.rules import broken_fields_rules, broken_rules

__all__ = ["TEST_IMAGES", "broken_fields_rules", "broken_rules", "export_package", "verify_package"]
