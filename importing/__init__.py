"""Weights of other frameworks, matched layer by layer with our nets."""

from configs.processor import use_onednn

use_onednn()  # before a module of this package imports TensorFlow
