"""The Keras layers, and the networks built from them."""

from pdeinfer.nn.global_layer import GlobalLayer
from pdeinfer.nn.macs import count_macs, count_parameters
from pdeinfer.nn.networks import Classifier
from pdeinfer.nn.zero_fields import count_zero_fields

__all__ = ["Classifier", "GlobalLayer", "count_macs", "count_parameters", "count_zero_fields"]
