"""Data sets: the standard ones, and folders of images."""

from pdeinfer.datasets.image_folder import ImageFolder, find_images
from pdeinfer.datasets.recorded import load_test_split, load_training_images
from pdeinfer.datasets.splits import Array, Dataset, Split, hold_out
from pdeinfer.datasets.standard import load_dataset
from pdeinfer.spec.training_record import DatasetName, StandardName

__all__ = [
    "Array",
    "Dataset",
    "DatasetName",
    "ImageFolder",
    "Split",
    "StandardName",
    "find_images",
    "hold_out",
    "load_dataset",
    "load_test_split",
    "load_training_images",
]
