"""Exports checkpoints to formats of other programs; one file per format, listed in `export_factory`."""

from support.library import prepare

prepare()  # before a module of this package imports TensorFlow
