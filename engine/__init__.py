"""Training, evaluation and prediction: the loops, and the parts that they are made of."""

from support.library import prepare

prepare()  # before a module of this package imports TensorFlow
