"""Data sets: which files they are, how records are read, and the road from a record to a batch."""

from support.library import prepare

prepare()  # before a module of this package imports TensorFlow
