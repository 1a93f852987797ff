"""Training, evaluation and prediction: the loops and their parts."""

from support.library import prepare

prepare()  # before a module of this package imports TensorFlow
