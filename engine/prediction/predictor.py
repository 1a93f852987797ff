"""Prediction from Python: classifies images with a checkpoint or an exported file.

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
from engine.classifiers import load_classifier
from engine.distributed import distribution
from engine.distributed.kernels import set_precision
from engine.prediction import image_files
from engine.prediction.image_files import Image
from support.errors import InputError


@dataclasses.dataclass(frozen=True)
class Guess:
    """A predicted class.

    Attributes:
        index: Index of the class.
        label: Name of the class; the index as text if the name is unknown.
        probability: In [0, 1].
    """

    index: int
    label: str
    probability: float


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        path: Path of the image; empty for bytes and arrays.
        top_k: The most likely classes, the most likely first; equal ones by index. Empty after an error.
        error: The error, or None.
    """

    path: str
    top_k: tuple[Guess, ...] = ()
    error: str | None = None


class Predictor:
    """Classifies images with a net that is loaded once.

    Attributes:
        classifier: The loaded net.
    """

    def __init__(
        self,
        path: str,
        net: NetOverrides = NetOverrides(),
        foreign: ForeignOptions = ForeignOptions(),
        *,
        averages: bool = False,
        temperature: float | None = None,
        mixed_precision: str = 'float32',
        devices: str = 'auto',
        batch_size: int = 32,
        apply_exif_orientation: bool = True,
    ):
        """Loads a net, see `engine.classifiers.load_classifier`.

        Args:
            path: A checkpoint, a folder of them, a `.keras`, `.weights.h5`, `.tflite` or `.onnx` file, or a SavedModel.
            net: Properties of the net that the file does not record.
            foreign: Further properties that a foreign file does not record.
            averages: Whether to take a checkpoint's moving averages as the weights.
            temperature: Logits are divided by it; None: the one stored for these weights, otherwise 1.
            mixed_precision: Arithmetic of the layers of a checkpoint's net.
            devices: 'auto', 'cpu' or 'gpu'.
            batch_size: Images per batch.
            apply_exif_orientation: Whether to rotate images by their EXIF orientation, as viewers do; training and
                evaluation do not.

        Raises:
            InputError: there is no net, it is damaged, lacks needed information, or the arguments contradict it.
        """
        strategy = distribution.make_strategy(DeviceOptions(devices=devices, num_clones=1))
        set_precision(mixed_precision, strategy)
        with strategy.scope():
            self.classifier = load_classifier(
                path, net, foreign, averages=averages, mixed_precision=mixed_precision, temperature=temperature
            )
        self._batch_size, self._apply_exif_orientation = batch_size, apply_exif_orientation

    def predict(self, images: Iterable[Image], top_k: int = 5) -> list[Prediction]:
        """Classifies images.

        Args:
            images: Any mix of paths, bytes of image files, and uint8 arrays [height, width, 3] or [height, width].
            top_k: Number of classes per image; all classes if the net has fewer.

        Returns:
            A prediction for each image, in order; for an unusable image, with an error.

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
        """Classifies any number of images, batch by batch, while the next batch is read.

        Args:
            named: Pairs of a name and an image, see `predict`.
            top_k: As in `predict`.

        Yields:
            The prediction, and the image from `host_eval`, float32 [height, width, channels]; None after an error.
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
        """Returns the most likely classes of each image; none if its scores are not finite."""
        try:
            scores = self.classifier.scores(images)
        except tf.errors.ResourceExhaustedError as error:
            message = f'--batch_size={self._batch_size}: takes more memory than there is; use a smaller one'
            raise InputError(message) from error
        probabilities = self.classifier.interface.to_probabilities(scores)
        # Sorts scores, because different scores may round to equal probabilities; stable, like `tf.argmax`.
        order = np.argsort(-scores, axis=-1, kind='stable')[:, :top_k]
        labels = self.classifier.spec.label_names
        return [
            tuple(Guess(int(i), labels[i] if labels else str(i), float(row[i])) for i in ranked)
            if np.isfinite(row).all()
            else ()
            for ranked, row in zip(order, probabilities, strict=True)
        ]
