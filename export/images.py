"""Images for an export: to compare the written file with the checkpoint, and to calibrate quantization.

images = verification_images(source)
images.values, images.description
values = calibration_images(source)
"""

import dataclasses

import numpy as np
from absl import logging

from configs.export import MOST_CALIBRATION_IMAGES, calibration_count
from datasets import input_pipeline
from datasets.dataset_factory import Dataset, get_dataset
from datasets.examples import StoredExamples
from engine.prediction import image_files
from export.source import Source
from support.errors import InputError

_COUNT = 32


@dataclasses.dataclass(frozen=True)
class Images:
    """Images from `host_eval`.

    Attributes:
        values: float32 [images, height, width, channels].
        description: Their origin, for messages.
    """

    values: np.ndarray
    description: str


def verification_images(source: Source) -> Images:
    """Returns the first 32 images of `--verification_images` or of the evaluation split, or random images.

    Raises:
        InputError: A named image cannot be read.
    """
    asked = source.options.verification_images
    if asked is not None:
        return _named_images(source, 'verification_images', image_files.find_images([asked])[:_COUNT])
    if source.spec.dataset_name and source.spec.dataset_name != 'synthetic':
        try:
            dataset = _dataset(source, None)
            return Images(_read(source, dataset, _COUNT), f'images of {dataset.name}, split {dataset.split}')
        except InputError:  # not on this machine, or no evaluation split
            if source.dataset_dir is not None:
                raise
    # Smooth images: a net's outputs on noise are all alike.
    side, channels = source.preprocessing.image_size, source.preprocessing.source_channels
    coarse = np.random.RandomState(0).uniform(0, source.preprocessing.host_range, (_COUNT, 4, 4, channels))
    repeated = coarse.repeat(-(-side // 4), 1).repeat(-(-side // 4), 2)[:, :side, :side]
    return Images(repeated.astype(np.float32), 'random images (the data set is not at hand; see --verification_images)')


def calibration_images(source: Source) -> np.ndarray:
    """Returns images of the training split, or those of `--calibration_images`, evenly spread.

    Returns:
        float32 [images, ...] in the file's input format, see `Interface.prepare`.

    Raises:
        InputError: The data set is missing, or a named image cannot be read.
    """
    count = calibration_count(source.options)
    if count is None:
        names = image_files.find_images([source.options.calibration_images])
        found = _named_images(source, 'calibration_images', names[:: -(-len(names) // MOST_CALIBRATION_IMAGES)])
    else:
        found = _training_images(source, count)
    logging.info('measuring ranges on %d %s', len(found.values), found.description)
    return source.interface.prepare(found.values, source.preprocessing)


def batches_of(images: np.ndarray, size: int) -> list[np.ndarray]:
    """Returns batches of equal size; the last is filled up with the first images."""
    return [images[np.arange(first, first + size) % len(images)] for first in range(0, len(images), size)]


def _training_images(source: Source, count: int) -> Images:
    try:
        dataset = _dataset(source, 'train')
    except InputError as error:
        raise InputError(
            f'--quantize={source.options.quantize} measures ranges on images of the training split: {error}; say '
            'with --dataset_dir where they are, or name a folder of images: --calibration_images=FOLDER'
        ) from error
    if not isinstance(dataset.examples, StoredExamples):
        raise InputError(
            f'--quantize={source.options.quantize} measures ranges on images; {dataset.name} has none: name a folder '
            'of images, --calibration_images=FOLDER'
        )
    step = max(dataset.num_examples // count, 1)
    chosen = dataset.examples.select(slice(0, count * step, step))
    values = _read(source, dataclasses.replace(dataset, examples=chosen), count)
    return Images(values, f'images of {dataset.name}, split {dataset.split}')


def _dataset(source: Source, split: str | None) -> Dataset:
    spec = source.spec
    folder = source.dataset_dir or spec.folder_of_data()
    name = spec.dataset_name or 'imagenet'
    return get_dataset(name, folder, split, spec.labels_offset, record_names=spec.record_names)


def _read(source: Source, dataset: Dataset, count: int) -> np.ndarray:
    number = min(count, dataset.num_examples)
    with input_pipeline.naming_failures(dataset, source.preprocessing, range(number)):
        batch = next(iter(input_pipeline.evaluation_batches(dataset, source.preprocessing, number, number)))
        return batch['image'].numpy()


def _named_images(source: Source, flag: str, names: list[str]) -> Images:
    asked = getattr(source.options, flag)
    prepared = image_files.prepare(source.preprocessing, names)
    for name, image in zip(names, prepared, strict=True):
        if isinstance(image, str):
            raise InputError(f'--{flag}={asked}: {name}: {image}')
    return Images(np.stack(prepared), f'images of {asked}')
