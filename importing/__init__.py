"""Weights of other frameworks, matched layer by layer with our nets."""

from support.library import prepare

prepare()  # before a module of this package imports TensorFlow
