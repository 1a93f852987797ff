"""A `.keras` file: Keras' own zip of config and weights, and in it what `engine.checkpoints` reads beside them.

`keras.saving.load_model` loads it, with its safe mode, once `nets.layers` is imported, which registers slim's layers.
"""

import json
import zipfile

import keras
import numpy as np

from engine import checkpoints
from export import verification
from export.source import Source

ENDING = '.keras'


def write(source: Source, path: str) -> None:
    """Writes the file."""
    source.model.save(path)
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr(checkpoints.METADATA, json.dumps(source.metadata()))


def verify(source: Source, path: str) -> list[str]:
    """Reads it back, with our reader and with Keras; returns lines that say what was compared."""
    expected = {**source.weights(), checkpoints.STEP_KEY: np.asarray(source.step, np.int64)}
    return [
        verification.compare_tensors(path, expected),
        verification.compare_logits(source, keras.saving.load_model(path, compile=False, safe_mode=True)),
        verification.compare_spec(source, path),
    ]
