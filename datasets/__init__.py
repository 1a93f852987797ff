"""Data sets: which files they are, how records are read, and the road from a record to a batch."""

from configs import library
from configs.processor import use_onednn

use_onednn()  # before a module of this package imports TensorFlow
library.prepare()
