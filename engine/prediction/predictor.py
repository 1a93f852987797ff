"""Prediction from Python: the most likely classes of images, by any file that holds a net.

predictor = Predictor('/tmp/tfmodel')
for prediction in predictor.predict(['cat.jpg', encoded_bytes, pixels], top_k=3):
    print(prediction.path, prediction.error or prediction.top_k[0].label)
"""

import collections
import dataclasses
import os
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from configs.devices import DeviceOptions
from configs.foreign import ForeignOptions, NetOverrides
from engine.classifiers import load_classifier, softmax
from engine.distributed import distribution
from engine.distributed.kernels import set_precision
from engine.prediction import image_files
from engine.prediction.image_files import Image
from support.errors import InputError


@dataclasses.dataclass(frozen=True)
class Guess:
    """A class that an image may be of.

    Attributes:
        index: Of the class.
        label: Its name; the index as text where nobody knows it.
        probability: In [0, 1].
    """

    index: int
    label: str
    probability: float


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        path: Of the image; empty if it came as bytes or as an array.
        top_k: The most likely classes, the most likely first; of equal ones the lower index first.
        error: Why there are none.
    """

    path: str
    top_k: tuple[Guess, ...] = ()
    error: str | None = None


class Predictor:
    """A net, loaded once.

    Attributes:
        classifier: It.
    """

    def __init__(
        self,
        path: str,
        net: NetOverrides = NetOverrides(),
        foreign: ForeignOptions = ForeignOptions(),
        *,
        averages: bool = False,
        mixed_precision: str = 'float32',
        devices: str = 'auto',
        batch_size: int = 32,
        apply_exif_orientation: bool = True,
    ):
        """Opens what lies at a path, see `engine.classifiers.load_classifier`.

        Args:
            path: A checkpoint, a folder of them, a `.keras`, `.weights.h5`, `.tflite` or `.onnx` file, or a SavedModel.
            net: What the path does not say of the net.
            foreign: What else a file of others does not say.
            averages: Of a checkpoint, take the moving averages as the weights.
            mixed_precision: Of a checkpoint, the arithmetic of the layers.
            devices: 'auto', 'cpu' or 'gpu'.
            batch_size: Images at a time.
            apply_exif_orientation: Turn images as their cameras say that they are to be looked at, as viewers do;
                training and evaluation do not.

        Raises:
            InputError: there is no net, it is damaged, does not say enough of itself, or the arguments contradict it.
        """
        strategy = distribution.make_strategy(DeviceOptions(devices=devices, num_clones=1))
        set_precision(mixed_precision, strategy)
        with strategy.scope():
            self.classifier = load_classifier(path, net, foreign, averages=averages, mixed_precision=mixed_precision)
        self._batch_size, self._apply_exif_orientation = batch_size, apply_exif_orientation

    def predict(self, images: Iterable[Image], top_k: int = 5) -> list[Prediction]:
        """Classifies images.

        Args:
            images: Paths, bytes of image files, or uint8 arrays [height, width, 3] or [height, width], mixed.
            top_k: How many classes of each; all of them if there are fewer.

        Returns:
            A prediction for each image in their order; of one that cannot be used, it says why.

        Raises:
            InputError: a batch does not fit into memory.
        """
        if isinstance(images, str | bytes):
            raise TypeError('images: must be a list, even for a single image')
        named = ((os.fspath(image) if isinstance(image, str | os.PathLike) else '', image) for image in images)
        return [prediction for prediction, _ in self.stream(named, top_k)]

    def stream(
        self, named: Iterable[tuple[str, Image]], top_k: int = 5
    ) -> Iterator[tuple[Prediction, np.ndarray | None]]:
        """Classifies any number of images, a batch at a time, while the next one is read.

        Args:
            named: What to call each image, and the image, see `predict`.
            top_k: As in `predict`.

        Yields:
            The prediction, and the image as `host_eval` gives it, float32 [height, width, channels]; None on an error.
        """
        names: collections.deque[str] = collections.deque()

        def images() -> Iterator[Image]:
            for name, image in named:
                names.append(name)
                yield image

        batches = image_files.prepare_batches(
            self.classifier.preprocessing,
            images(),
            self._batch_size,
            apply_exif_orientation=self._apply_exif_orientation,
        )
        for batch in batches:
            good = [image for image in batch if isinstance(image, np.ndarray)]
            found = iter(self._top_k(np.stack(good), top_k) if good else ())
            for image in batch:
                name = names.popleft()
                if isinstance(image, str):
                    yield Prediction(name, error=image), None
                    continue
                guesses = next(found)
                error = None if guesses else 'the net gives values that are not finite; its weights are not'
                yield Prediction(name, guesses, error), image

    def _top_k(self, images: np.ndarray, top_k: int) -> list[tuple[Guess, ...]]:
        """Returns the most likely classes of each image; none of one whose scores are not finite."""
        try:
            scores = self.classifier.scores(images)
        except tf.errors.ResourceExhaustedError as error:
            message = f'--batch_size={self._batch_size}: takes more memory than there is; use a smaller one'
            raise InputError(message) from error
        probabilities = softmax(scores) if self.classifier.interface.output == 'logits' else scores
        # By scores, as two probabilities may round to one; stable, so that of equal ones `tf.argmax` takes the first.
        order = np.argsort(-scores, axis=-1, kind='stable')[:, :top_k]
        labels = self.classifier.spec.label_names
        return [
            tuple(Guess(int(i), labels[i] if labels else str(i), float(row[i])) for i in ranked)
            if np.isfinite(row).all()
            else ()
            for ranked, row in zip(order, probabilities, strict=True)
        ]
