"""Imports weights of other frameworks, matched with this project's nets layer by layer."""

from support.library import prepare

prepare()  # before a module of this package imports TensorFlow
