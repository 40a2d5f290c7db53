"""The data sets: the standard ones, and folders of anyone's images."""

from pdeinfer.datasets.image_folder import ImageFolder, find_images
from pdeinfer.datasets.recorded import load_test_split, load_training_images
from pdeinfer.datasets.splits import Array, Dataset, DatasetName, Split, StandardName, hold_out
from pdeinfer.datasets.standard import load_dataset

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
