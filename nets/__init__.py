"""The nets of TF-Slim as Keras 3 functional models: one file per family, looked up in `nets_factory`."""

from support.library import prepare

prepare()  # before a module of this package imports TensorFlow
