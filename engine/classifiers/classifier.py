"""One interface to run a net, whatever its file format and runtime.

classifier = load_classifier('/tmp/net.onnx')
probabilities = classifier.probabilities(images)       # images from `classifier.preprocessing.host_eval`
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from engine.classifiers.interface import Interface
from engine.classifiers.model_spec import ModelSpec
from preprocessing.preprocessing_factory import Preprocessing
from support.errors import InputError


@dataclasses.dataclass(frozen=True)
class Runtime:
    """An exported file, open in the library that runs it.

    Attributes:
        kind: Its format, for tables: 'ONNX', 'TFLite int8'.
        input_shape: Shape of its images, including the batch; None is any size.
        num_classes: Number of scores per image.
        metadata: The description that `export/` wrote into it; empty in foreign files.
        run: Maps images, float32 of `input_shape` with any batch size, to scores, float32 [batch, num_classes].
    """

    kind: str
    input_shape: tuple[int | None, ...]
    num_classes: int
    metadata: dict[str, Any]
    run: Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A net that is ready to run.

    Attributes:
        path: Its file, folder, or checkpoint prefix.
        kind: Its format, for tables: 'checkpoint', 'TFLite int8'.
        spec: Net, classes and preprocessing; for a foreign file, `model_name` may be empty.
        step: The training step at which it was written; -1 if unknown.
        interface: The form in which `run` takes images and returns scores.
        run: Maps images to scores, float32 [batch, classes].
        model: The Keras model that `run` computes, from the same images; None for an exported file.
    """

    path: str
    kind: str
    spec: ModelSpec
    step: int
    interface: Interface
    run: Callable[[np.ndarray], np.ndarray]
    model: keras.Model | None = None

    @functools.cached_property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of its images."""
        return self.spec.make_preprocessing()

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Returns scores, float32 [batch, classes]: logits or probabilities, according to `interface.output`.

        Args:
            images: float32 [batch, height, width, channels] from `preprocessing.host_eval`.
        """
        return self.run(self.interface.prepare(images, self.preprocessing))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Returns probabilities, float32 [batch, classes]; `images` as in `scores`."""
        return self.interface.to_probabilities(self.scores(images))


class Batches:
    """Runs any number of images through a file, in batches of the size that the file accepts.

    If a file claims to accept any number but fails on several, it is run on one image at a time.
    """

    def __init__(self, run: Callable[[np.ndarray], np.ndarray], size: int | None):
        """Wraps a function that runs `size` images at a time; None is any number."""
        self._run, self._size = run, size

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the scores of images, [batch, ...]; raises InputError if the file fails even on one image."""
        if self._size is not None:
            return in_batches(self._run, self._size, images)
        try:
            return self._run(images)
        except InputError:
            if len(images) == 1:
                raise
            self._size = 1
            return self(images)


def in_batches(run: Callable[[np.ndarray], np.ndarray], size: int, images: np.ndarray) -> np.ndarray:
    """Runs images through a function that takes exactly `size` at a time; pads the last batch by repeating its images.

    Padding with zeros would make an int8 file that standardises its images divide by their deviation, 0.
    """
    results = []
    for first in range(0, len(images), size):
        part = images[first : first + size]
        filled = part if len(part) == size else part[np.arange(size) % len(part)]
        results.append(run(filled)[: len(part)])
    return np.concatenate(results)
