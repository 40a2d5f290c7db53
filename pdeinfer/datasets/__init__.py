"""Data sets: the standard ones, and folders of images."""

from pdeinfer.datasets.image_folder import Allocate, ImageFolder, find_images, find_recorded_images
from pdeinfer.datasets.labelled_files import LabelledFiles, find_labelled_files, holds_labels
from pdeinfer.datasets.recorded import (
    find_recorded_folder,
    load_test_split,
    load_training_images,
    load_validation_split,
)
from pdeinfer.datasets.splits import Dataset, Split, hold_out, sample_indices
from pdeinfer.datasets.standard import comes_in_files, holds_files, load_dataset
from pdeinfer.spec.training_record import DatasetName, StandardName

__all__ = [
    "Allocate",
    "Dataset",
    "DatasetName",
    "ImageFolder",
    "LabelledFiles",
    "Split",
    "StandardName",
    "comes_in_files",
    "find_images",
    "find_labelled_files",
    "find_recorded_folder",
    "find_recorded_images",
    "hold_out",
    "holds_files",
    "holds_labels",
    "load_dataset",
    "load_test_split",
    "load_training_images",
    "load_validation_split",
    "sample_indices",
]
