"""A `.weights.h5` file: Keras' HDF5 file of weights, and in it what `engine.checkpoints` reads beside them.

`model.load_weights` loads it into the same net.
"""

import json

import h5py
import numpy as np

from engine import checkpoints
from export import verification
from export.source import Source

ENDING = '.weights.h5'


def write(source: Source, path: str) -> None:
    """Writes the file."""
    source.model.save_weights(path)
    text = np.frombuffer(json.dumps(source.metadata()).encode(), np.uint8)
    with h5py.File(path, 'a') as file:
        file.create_dataset(checkpoints.METADATA, data=text)  # an attribute may not be larger than 64 KiB


def verify(source: Source, path: str) -> list[str]:
    """Reads it back, with our reader and with Keras; returns lines that say what was compared."""
    expected = {**source.weights(), checkpoints.STEP_KEY: np.asarray(source.step, np.int64)}
    model = source.spec.make_model(seed=1)
    model.load_weights(path)
    return [
        verification.compare_tensors(path, expected),
        verification.compare_logits(source, model),
        verification.compare_spec(source, path),
    ]
