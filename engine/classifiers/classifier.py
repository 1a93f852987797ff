"""A net that is ready to classify, whatever file it lies in and whatever runs it.

classifier = load_classifier('/tmp/net.onnx')
probabilities = classifier.probabilities(images)       # of `classifier.preprocessing.host_eval`'s images
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from engine.classifiers.interface import Interface, softmax
from engine.classifiers.model_spec import ModelSpec
from preprocessing.preprocessing_factory import Preprocessing
from support.errors import InputError


@dataclasses.dataclass(frozen=True)
class Runtime:
    """A file that is open in the program that runs it.

    Attributes:
        kind: What it is, for tables: 'ONNX', 'TFLite int8'.
        input_shape: Of its images, with the batch; None is any size.
        num_classes: Length of its results.
        metadata: What `export/` wrote into it; empty in files of others.
        run: From images, float32 of `input_shape` with any batch, to its results, float32 [batch, num_classes].
    """

    kind: str
    input_shape: tuple[int | None, ...]
    num_classes: int
    metadata: dict[str, Any]
    run: Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A net that can be run.

    Attributes:
        path: Where it lies.
        kind: What it is, for tables: 'checkpoint', 'TFLite int8'.
        spec: Net, classes and preprocessing; of a file of others, `model_name` is empty.
        step: After how many steps it was written; -1 if nobody knows.
        interface: How `run` takes images.
        run: From images to results, float32 [batch, classes].
    """

    path: str
    kind: str
    spec: ModelSpec
    step: int
    interface: Interface
    run: Callable[[np.ndarray], np.ndarray]

    @functools.cached_property
    def preprocessing(self) -> Preprocessing:
        """How its images are prepared."""
        return self.spec.make_preprocessing()

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Returns its results, float32 [batch, classes]: logits or probabilities, as `interface.output` says.

        Args:
            images: float32 [batch, height, width, channels], as `preprocessing.host_eval` gives them.
        """
        return self.run(self.interface.prepare(images, self.preprocessing))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Returns float32 [batch, classes] for such images."""
        scores = self.scores(images)
        return softmax(scores) if self.interface.output == 'logits' else scores


class Batches:
    """Runs any number of images through a file that says how many it takes at a time.

    Some say that they take any number, and have layers that were made for one image.
    """

    def __init__(self, run: Callable[[np.ndarray], np.ndarray], size: int | None):
        """Takes what runs `size` images at once; None is any number."""
        self._run, self._size = run, size

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the results of images, [batch, ...]; raises InputError if it cannot be run on one either."""
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
    """Runs images through what takes exactly `size` at a time; the last batch is filled up with images of its own.

    Not with zeros: an int8 file that standardises its images would divide by their deviation, 0.
    """
    results = []
    for first in range(0, len(images), size):
        part = images[first : first + size]
        filled = part if len(part) == size else part[np.arange(size) % len(part)]
        results.append(run(filled)[: len(part)])
    return np.concatenate(results)
