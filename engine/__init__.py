"""Training, evaluation and prediction: the loops, and the parts that they are made of."""

from configs import library
from configs.processor import use_onednn

use_onednn()  # before a module of this package imports TensorFlow
library.prepare()
