"""Image classification sets of TensorFlow Datasets: their record files and keys.

builder = open_builder('mnist', '/data/tfds')       # downloaded and prepared first if missing
builder.splits['train'], builder.image_key          # ('/data/tfds/mnist/3.0.1/mnist-train...',), 'image'
"""

import contextlib
import dataclasses
import difflib
import io
import json
import logging
import os
import re
import reprlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging as absl_logging

from datasets import tfrecord
from datasets.collection import Collection
from datasets.examples import RecordExamples
from datasets.records import glob_escape, index_records
from datasets.regular_files import read_file
from support.errors import InputError, first_line

_FEATURES = 'features.json'
_DEPTH = 4  # configuration, version
_OWN_TYPE = re.compile(r'tensorflow_datasets(\.\w+)+')


@dataclasses.dataclass(frozen=True)
class TfdsBuilder:
    """A prepared data set.

    Attributes:
        name: Name with configuration and version, such as `mnist/3.0.1`.
        splits: Name -> its TFRecord files, in order; splits without examples are left out.
        image_key: Key of the encoded image in a record's `tf.train.Example`.
        label_key: Key of the label, an int64.
        class_names: Name of each label.
        channels: 1 if the images are gray, else 3.
    """

    name: str
    splits: dict[str, tuple[str, ...]]
    image_key: str
    label_key: str
    class_names: tuple[str, ...]
    channels: int


def open_builder(name: str, data_dir: str | None = None) -> TfdsBuilder:
    """Finds a data set of TensorFlow Datasets; downloads and prepares it if missing.

    Args:
        name: In TFDS notation: `name`, `name/config`, `name:version` or `name/config:version`.
        data_dir: TFDS's folder of data sets; by default ~/tensorflow_datasets.

    Raises:
        InputError: The name is unknown, the set is not for image classification, cannot be downloaded or is not
            stored as TFRecords, or files are missing.
    """
    builder = _find(name, data_dir)
    image_key, label_key = _supervised_keys(name, builder)  # before anything is downloaded
    if not builder.data_path.exists():
        with explained_download(f'--dataset_name=tfds:{name}'):
            builder.download_and_prepare()
    if builder.info.file_format.value != 'tfrecord':
        raise InputError(
            f'{builder.data_path}: stored as {builder.info.file_format.value}, and only tfrecord can be read; '
            'prepare it again in another folder'
        )
    image, label = builder.info.features[image_key], builder.info.features[label_key]
    names = tuple(label.names or (str(number) for number in range(label.num_classes or 0)))
    infos = sorted(builder.info.splits.items(), key=_order)
    splits = {split: _paths(info) for split, info in infos if info.num_examples}
    channels = 1 if image.shape[-1] == 1 else 3
    return TfdsBuilder(builder.info.full_name, splits, image_key, label_key, names, channels)


def open_collection(name: str, data_dir: str | None = None) -> Collection:
    """Opens a data set of TensorFlow Datasets for training or evaluation; see `open_builder`."""
    builder = open_builder(name, data_dir)
    schema = tfrecord.Schema(f'tfds:{builder.name}', builder.image_key, builder.label_key, is_slims=False)

    def open_split(split: str) -> RecordExamples:
        return index_records(list(builder.splits[split]), f'the files of split {split} of tfds:{builder.name}', schema)

    names = builder.class_names
    return Collection(data_dir or '', tuple(builder.splits), len(names), names, builder.channels, open_split)


def _find(name: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds

    with _silence():
        try:
            _refuse_foreign_features(name, data_dir)
            return tfds.builder(name, data_dir=data_dir)
        except InputError:
            raise
        except tfds.core.DatasetNotFoundError as error:
            close = difflib.get_close_matches(name, tfds.list_builders(), n=1)
            raise InputError(
                f'--dataset_name=tfds:{name}: no such data set in TensorFlow Datasets {tfds.__version__}'
                f'{f" (did you mean {close[0]!r}?)" if close else ""}; `tfds.list_builders()` lists them all'
            ) from error
        except Exception as error:  # each data set runs its own code, which may raise anything
            raise InputError(f'--dataset_name=tfds:{name}: {_one_line(error)}') from error


def _refuse_foreign_features(name: str, data_dir: str | None) -> None:
    """Raises InputError if a prepared data set has features that are not TFDS's: TFDS imports any module a file names.

    Raises:
        InputError: With the file and the type.
    """
    import tensorflow_datasets as tfds

    parsed, options = tfds.core.naming.parse_builder_name_kwargs(name, data_dir=data_dir)
    for folder in tfds.core.utils.file_utils.list_data_dirs(given_data_dir=options.get('data_dir')):
        root = glob_escape(os.path.join(os.path.expanduser(folder), parsed.name))
        for depth in range(_DEPTH):
            for path in tf.io.gfile.glob(os.path.join(root, *['*'] * depth, _FEATURES)):
                check_features(path)


def check_features(path: str) -> None:
    """Raises InputError if a features.json names types outside TFDS; imports nothing that it names.

    Raises:
        InputError: The file names such a type or cannot be read.
    """
    try:
        named = list(_named_types(json.loads(read_file(path))))
    except InputError:
        raise
    except (ValueError, RecursionError, OSError, tf.errors.OpError) as error:
        raise InputError(f'{path}: damaged: {first_line(error)}; prepare the data set again') from error
    for name in named:
        if not isinstance(name, str) or not _OWN_TYPE.fullmatch(name):
            raise InputError(
                f'{path}: names the type {reprlib.repr(name)}, and only those of tensorflow_datasets are allowed, as '
                'others would run code; prepare the data set with them'
            )


def _named_types(value: Any) -> Iterator[Any]:
    """Yields every value in a parsed features.json that TFDS would take for a type name."""
    if isinstance(value, list):
        for item in value:
            yield from _named_types(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in ('pythonClassName', 'python_class_name') or (key == 'type' and 'content' in value):
                yield item
            elif isinstance(item, str) and item.lstrip().startswith(('{', '[')):  # JSON within JSON, as TFDS writes it
                yield from _named_types(json.loads(item))
            else:
                yield from _named_types(item)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Silences TFDS: it logs each file that it examines, and prints which optional packages are missing."""
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        absl_logging.set_verbosity(verbosity)


def _supervised_keys(name: str, builder: Any) -> tuple[str, str]:
    """Returns the keys of image and label in a record."""
    import tensorflow_datasets as tfds

    features, keys = builder.info.features, builder.info.supervised_keys
    if keys is None:  # the features may still be a plain image and label
        found = [
            [key for key, feature in features.items() if isinstance(feature, kind)]
            for kind in (tfds.features.Image, tfds.features.ClassLabel)
        ]
        keys = tuple(key for of_kind in found if len(of_kind) == 1 for key in of_kind)
    if isinstance(keys, tuple) and len(keys) == 2 and all(key in features for key in keys):
        image, label = features[keys[0]], features[keys[1]]
        if isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel):
            if image.np_dtype == np.uint8:
                return keys
            kind = np.dtype(image.np_dtype).name
            raise InputError(f'--dataset_name=tfds:{name}: its images are {kind}; only uint8 can be read')
    present = ', '.join(f'{key}: {type(feature).__name__}' for key, feature in features.items())
    raise InputError(
        f'--dataset_name=tfds:{name}: not for image classification: its supervised_keys are '
        f'{builder.info.supervised_keys}, which must be an Image and a ClassLabel, of the features {present}'
    )


def _order(split: tuple[str, Any]) -> tuple[int, str]:
    """Sort key that puts the training split first and evaluation splits last."""
    return {'train': 0, 'validation': 2, 'test': 3}.get(split[0], 1), split[0]


def _paths(split: Any) -> tuple[str, ...]:
    paths = tuple(os.fspath(path) for path in split.filepaths)
    for path in paths:
        if not os.path.exists(path):
            raise InputError(f'{path}: missing; remove its folder, so that TFDS prepares the data set again')
    return paths


@contextlib.contextmanager
def explained_download(flag: str) -> Iterator[None]:
    """Converts any error while TFDS downloads or prepares a data set to a one-line InputError.

    Without network, TFDS tries ten times in three minutes and would print a warning each time.
    """
    urllib3 = logging.getLogger('urllib3.connectionpool')
    level = urllib3.level
    urllib3.setLevel(logging.ERROR)
    try:
        yield
    except Exception as error:  # the data set's own code again
        raise InputError(
            f'{flag}: TensorFlow Datasets could not download or prepare it: {_one_line(error)}; on a machine without '
            'network, give the published archives by --source_dir, or a folder of TFDS that holds it prepared'
        ) from error
    finally:
        urllib3.setLevel(level)


def _one_line(error: Exception) -> str:
    """Returns the message on one line, at most 300 characters; TFDS's messages have many lines."""
    text = ' '.join(str(error).split()) or first_line(error)
    return text if len(text) <= 300 else f'{text[:300]} ...'
