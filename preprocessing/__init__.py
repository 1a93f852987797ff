"""Preparing encoded images for a net: a host stage on one image, then a device stage on a batch."""

from support.library import prepare

prepare()  # before a module of this package imports TensorFlow
