"""Data sets: their formats, reading records, and the pipeline from a record to a batch."""

from support.library import prepare

prepare()  # before a module of this package imports TensorFlow
