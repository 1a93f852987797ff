"""Formats that hold only weights: slim's checkpoints, and Keras' `.keras` and `.weights.h5` files.

A checkpoint is in a folder for --checkpoint_path of TF1 slim's eval_image_classifier.py: it holds the content of slim's
`Saver`, weights, slots and averages by slim's names, and the int64 global_step. `keras.saving.load_model` loads a
`.keras` file, in safe mode, once `nets.layers` is imported, which registers slim's layers; `model.load_weights` loads a
`.weights.h5` file into the same net. Both also hold the metadata that `engine.checkpoints` reads.
"""

import json
import os
import zipfile

import h5py
import keras
import numpy as np

from engine import checkpoints
from engine.classifiers.model_spec import ModelSpec
from export.source import Source
from export.verification import failure
from nets.variables import slim_variables

SLIM_MEMBERS = r'checkpoint|model\.json|model\.ckpt-\d+\.(index|data-\d+-of-\d+)'
_IMAGES = 4
_TOLERANCE = 1e-5  # relative to the largest logit; float32 sums in another order differ by less
_Tensors = dict[str, np.ndarray]


def write_slim(source: Source, folder: str) -> None:
    """Writes `model.ckpt-<step>`, the `checkpoint` file that names it, and model.json for evaluation here."""
    os.mkdir(folder)
    checkpoints.save(folder, source.step, _with_step(source, source.state), max_to_keep=0)
    source.spec.save(folder)


def verify_slim(source: Source, folder: str) -> list[str]:
    """Reads the checkpoint back; returns lines that list the comparisons."""
    prefix = checkpoints.find_checkpoint(folder)
    model = source.spec.make_model(seed=1)
    checkpoint = checkpoints.Checkpoint(prefix)
    checkpoints.restore(checkpoint, {name: variable.value for name, variable in slim_variables(model).items()})
    return _compare(source, prefix, _with_step(source, source.state), model)


def write_keras(source: Source, path: str) -> None:
    """Writes a .keras file with metadata."""
    source.model.save(path)
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr(checkpoints.METADATA, json.dumps(source.metadata()))


def verify_keras(source: Source, path: str) -> list[str]:
    """Reads the file back, with our reader and with Keras; returns lines that list the comparisons."""
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    return _compare(source, path, _with_step(source, {}), model)


def write_weights_h5(source: Source, path: str) -> None:
    """Writes a .weights.h5 file with metadata."""
    source.model.save_weights(path)
    text = np.frombuffer(json.dumps(source.metadata()).encode(), np.uint8)
    with h5py.File(path, 'a') as file:
        file.create_dataset(checkpoints.METADATA, data=text)  # an attribute is limited to 64 KiB


def verify_weights_h5(source: Source, path: str) -> list[str]:
    """Reads the file back, with our reader and with Keras; returns lines that list the comparisons."""
    model = source.spec.make_model(seed=1)
    model.load_weights(path)
    return _compare(source, path, _with_step(source, {}), model)


def _with_step(source: Source, state: _Tensors) -> _Tensors:
    return {**source.weights(), **state, checkpoints.STEP_KEY: np.asarray(source.step, np.int64)}


def _compare(source: Source, path: str, expected: _Tensors, model: keras.Model) -> list[str]:
    """Compares a written file with the source; returns lines that list the comparisons.

    Args:
        source: The source of the export.
        path: The written file, as a checkpoint.
        expected: Its expected content, to the bit, by name.
        model: The net with the weights that were read back.

    Raises:
        InputError: Something differs.
    """
    return [checkpoints.compare(path, expected), _compare_logits(source, model), compare_spec(source, path)]


def _compare_logits(source: Source, read_back: keras.Model) -> str:
    """Compares the logits of both nets on the same images; returns a line with the difference."""
    shape = (_IMAGES, *source.model.input_shape[1:])
    images = np.random.RandomState(0).uniform(-1, 1, shape).astype(np.float32)
    expected, found = (np.asarray(model(images, training=False)) for model in (source.model, read_back))
    difference = float(np.abs(found - expected).max())
    if not difference <= _TOLERANCE * max(float(np.abs(expected).max()), 1.0):
        raise failure(f'its logits differ by {difference:.3g}')
    return f'compared {expected.size} logits of {_IMAGES} images: largest difference {difference:.3g}'


def compare_spec(source: Source, path: str) -> str:
    """Checks that the written file is enough for evaluation, and describes the same net."""
    if ModelSpec.of_checkpoint(checkpoints.Checkpoint(path)) != source.spec:
        raise failure('it is described as another net')
    spec = source.spec
    return f'compared what it says of itself: {spec.model_name}, {spec.num_classes} classes, {spec.image_size} px'
