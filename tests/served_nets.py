"""Nets to export, with weights whose results differ from image to image as those of trained nets do, and exports.

source = make_source('lenet', digits_dir, quantize='int8')
path = export(trained.checkpoint_path, tmp_path / 'net.onnx', quantize='int8')
"""

import contextlib
import dataclasses
import os
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from configs.export import ExportConfig, ExportOptions
from configs.foreign import NetOverrides
from configs.options import make_config
from engine.classifiers import Interface, load_classifier
from engine.classifiers.model_spec import ModelSpec
from export import exporting
from export.source import Source
from nets import nets_factory
from preprocessing.preprocessing_factory import Preprocessing
from support.errors import InputError

LABELS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
NARROW = 1 / 16
_SPREAD = 2.0


def make_source(name: str, digits_dir: Path, interface: Interface | None = None, **options: Any) -> Source:
    """Returns a narrow net for the smallest images, of the data set of the digits.

    Args:
        name: Of the net.
        digits_dir: Folder of the data set, of whose images ranges are measured and results compared.
        interface: Of the file; by default what the net takes itself.
        options: Of ModelSpec, and of the export.
    """
    net = nets_factory.get_net(name)
    given = {key: options.pop(key) for key in list(options) if key in ModelSpec.__annotations__}
    spec = ModelSpec(
        **{
            'model_name': name,
            'num_classes': 10,
            'image_size': net.min_image_size,
            'channels': 3,
            'preprocessing_name': net.preprocessing,
            'depth_multiplier': NARROW,
            'labels_offset': 0,
            'use_grayscale': False,
            'dataset_name': 'digits',
            'dataset_dir': str(digits_dir),
            'label_names': LABELS,
            **given,
        }
    )
    model = spec.make_model()
    preprocessing = spec.make_preprocessing()
    _spread_results(model, preprocessing)
    interface = interface or Interface(channel_order=preprocessing.normalization.channel_order)
    return Source('/run/model.ckpt-7', spec, model, 7, False, interface, ExportOptions(**options), None, {})


def with_options(source: Source, **options: Any) -> Source:
    """Returns a source with other options of the export."""
    return dataclasses.replace(source, options=dataclasses.replace(source.options, **options))


def export(checkpoint_path: Path | str, output_path: Path | str, **options: Any) -> Path:
    """Exports as the script does; returns what was written."""
    paths = {'checkpoint_path': str(checkpoint_path), 'output_path': str(output_path)}
    return Path(exporting.export(make_config(ExportConfig, **paths, **options)))


def occupy(path: Path, kind: str) -> None:
    """Puts something precious where an output should go: a folder, a file, a pipe, or a link to a folder or file."""
    if kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'file':
        path.write_text('precious')
    elif kind == 'folder':
        path.mkdir()
        (path / 'precious.txt').write_text('precious')
    else:
        target = path.with_name('precious')
        occupy(target, kind.removeprefix('link to a '))
        path.symlink_to(target)


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Returns inode, time of change and size of each file below a folder: they change with every write."""
    found = {str(path): path.lstat() for path in folder.rglob('*')}
    return {path: (status.st_ino, status.st_mtime_ns, status.st_size) for path, status in found.items()}


def flip(path: Path, place: int) -> None:
    """Changes one bit of a file, in the byte at a place."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)


def assert_refused(path: Path | str, message: str, **asked: Any) -> None:
    """Checks that a classifier is not opened, with one line: its path, or that of a file in it, and the message."""
    with pytest.raises(InputError, match=rf'^{re.escape(str(path))}(/\S+)?:? {message}') as error:
        load_classifier(str(path), NetOverrides(**asked))
    assert '\n' not in str(error.value)


def assert_agrees(source: Source, path: Path, bounds: tuple[float, float], count: int = 32) -> None:
    """Checks how much, at most and on average, the probabilities of a file differ from those of the net."""
    images = smooth_images(source.preprocessing, count)
    expected = source.classifier.probabilities(images)
    assert expected.std(axis=0).mean() > 0.05  # they differ from image to image
    difference = np.abs(load_classifier(str(path)).probabilities(images) - expected)
    assert difference.max() < bounds[0]
    assert difference.mean() < bounds[1]


@contextlib.contextmanager
def calibrated_on_smooth_images(module: types.ModuleType) -> Iterator[None]:
    """Lets a module of `export` measure ranges on images that no data set has to be read for."""

    def images(source: Source) -> np.ndarray:
        return source.interface.prepare(smooth_images(source.preprocessing), source.preprocessing)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'calibration_images', images)
        yield


def smooth_images(preprocessing: Preprocessing, count: int = 32) -> np.ndarray:
    """Returns random images as `host_eval` gives them, float32 [count, height, width, source_channels]."""
    side, channels = preprocessing.image_size, preprocessing.source_channels
    coarse = np.random.RandomState(0).uniform(0, preprocessing.host_range, (count, 4, 4, channels)).astype(np.float32)
    return coarse.repeat(-(-side // 4), 1).repeat(-(-side // 4), 2)[:, :side, :side]


def _spread_results(model: keras.Model, preprocessing: Preprocessing) -> None:
    """Makes weights that keep the size of values from layer to layer, and logits that differ between images."""
    random = np.random.RandomState(0)
    for variable in model.variables:
        if variable.name == 'kernel':
            variable.assign(random.normal(0, np.sqrt(2 / np.prod(variable.shape[:-1])), variable.shape))
        elif variable.name == 'moving_variance':
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        else:
            variable.assign(variable + random.normal(0, 0.05, variable.shape))
    logits = model(preprocessing.device_eval(smooth_images(preprocessing)), training=False).numpy()
    kernel, bias = model.variables[-2:]
    scale = _SPREAD / logits.std(axis=0).mean()
    kernel.assign(kernel * scale)
    bias.assign((bias - logits.mean(axis=0)) * scale)
