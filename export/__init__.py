"""Checkpoints in the formats of other programs; one file a format, `export_factory` has the table."""

from support.library import prepare

prepare()  # before a module of this package imports TensorFlow
