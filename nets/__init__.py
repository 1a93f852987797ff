"""The nets of TF-Slim as Keras 3 functional models: one file a family, looked up in `nets_factory`."""

from configs import library
from configs.processor import use_onednn

use_onednn()  # before a module of this package imports TensorFlow
library.prepare()
