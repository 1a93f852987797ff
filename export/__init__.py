"""Checkpoints in the formats of other programs; one file a format, `export_factory` has the table."""

from configs import library
from configs.processor import use_onednn

use_onednn()  # before a module of this package imports TensorFlow
library.prepare()
