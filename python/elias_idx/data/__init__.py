"""Labelled inputs: reading them, and their labels as sparse matrices."""

from elias_idx.data.contents import Inputs, as_texts, is_sparse, num_rows, same_inputs
from elias_idx.data.jsonl import Row, read_rows, write_rows
from elias_idx.data.label_texts import LabelText, LabelTexts, read_label_texts
from elias_idx.data.labels import LabelVocabulary, checked_matrix
from elias_idx.data.reading import read_excluded, read_inputs, read_training_set
from elias_idx.data.training_set import TrainingSet, labels_by_name

__all__ = [
    "Inputs",
    "LabelText",
    "LabelTexts",
    "LabelVocabulary",
    "Row",
    "TrainingSet",
    "as_texts",
    "checked_matrix",
    "is_sparse",
    "labels_by_name",
    "num_rows",
    "read_excluded",
    "read_inputs",
    "read_label_texts",
    "read_rows",
    "read_training_set",
    "same_inputs",
    "write_rows",
]
