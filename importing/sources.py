"""Files that weights come in, by the ending of their names; each fills a net with what it holds.

source = open_source('bvlcalexnet-12.onnx')
sizes = source.find_sizes('bvlc_alexnet', image_size=None)
source.check(spec)
lines = source.fill(spec.make_model(), spec)            # what was compared
"""

import os
from collections.abc import Callable
from typing import Protocol

import keras

from configs.errors import InputError, first_line
from engine import checkpoints
from engine.checkpoints import other_formats
from engine.model_spec import ModelSpec
from importing import exports, keras_walk, matching, onnx_file, onnx_walk, torch_weights, verification
from importing.chain import OTHER, Step
from importing.sizes import Sizes, find_depth_multiplier, widths
from nets import nets_factory

_HOW_TO_SAVE = (
    'of a state_dict, in PyTorch, '
    "safetensors.torch.save_file(torch.load('{name}', weights_only=True), '{stem}.safetensors')"
)


class Source(Protocol):
    """A file with the weights of a net.

    Attributes:
        described: What an export of this project says of itself; None of files of others.
    """

    described: ModelSpec | None

    def find_sizes(self, model_name: str, image_size: int | None) -> Sizes:
        """Returns how large the net is.

        Args:
            model_name: The net that the weights should be of.
            image_size: Side of the images, where the file does not say it; None is the net's own.

        Raises:
            InputError: the file says another one, or holds no weights.
        """

    def check(self, spec: ModelSpec) -> None:
        """Checks that the weights are of a net, before it is made.

        Raises:
            InputError: they are of another net: the first layer that differs.
        """

    def fill(self, model: keras.Model, spec: ModelSpec) -> list[str]:
        """Gives a net the weights, once they were checked; returns lines that say what was compared.

        Raises:
            InputError: they are damaged, or the net then computes something else than the source.
        """


class OnnxSource:
    """A graph of ONNX."""

    def __init__(self, path: str):
        self._file = onnx_file.load(path)
        self.described = exports.read_spec(self._file)
        self._walked: onnx_walk.Walked | None = None

    def find_sizes(self, model_name: str, image_size: int | None) -> Sizes:
        """Takes all of them from the graph, but for a size that it leaves open; see `Source`."""
        walked = self._walked = onnx_walk.walk(self._file, image_size or nets_factory.get_net(model_name).image_size)
        side, _, channels = walked.extent
        if image_size not in (None, side):
            raise InputError(f'--image_size={image_size}: {self._file.path} takes images of {side} px; leave it out')
        steps = walked.chain.steps
        ended = [1] if steps and steps[-1].kind == OTHER else []  # before the classes were seen
        return _sizes(side, channels, model_name, widths(steps) + ended)

    def check(self, spec: ModelSpec) -> None:
        """Compares node by node; see `Source`."""
        words = matching.difference(self._steps, matching.without_softmax(_sketch(spec)), _describe(spec))
        if words is not None:
            raise InputError(f'--source={self._file.path}: not {spec.model_name}: {words}')

    def fill(self, model: keras.Model, spec: ModelSpec) -> list[str]:
        """Takes the weights node by node, and runs both; see `Source`."""
        assert self._walked is not None
        expected = matching.without_softmax(keras_walk.walk(model).steps)
        tensors, numbers = matching.assign(self._steps, expected)
        return [
            f'matched {self._walked.num_nodes} nodes with {spec.model_name}: {tensors} tensors, {numbers} parameters',
            verification.compare_logits(self._file, self._walked, model, spec),
        ]

    @property
    def _steps(self) -> list[Step]:
        assert self._walked is not None
        return matching.without_softmax(self._walked.chain.steps)


class TorchSource:
    """PyTorch weights, which come without a graph: what can be compared are names and shapes."""

    def __init__(self, path: str):
        self._weights = torch_weights.load(path)
        self.described: ModelSpec | None = None

    def find_sizes(self, model_name: str, image_size: int | None) -> Sizes:
        """Takes the widths from the shapes; see `Source`."""
        kernels = [layer.kernel for layer in self._weights.layers if layer.kernel]
        channels = kernels[0][1] if kernels else 3
        side = image_size or nets_factory.get_net(model_name).image_size
        return _sizes(side, channels, model_name, [kernel[0] for kernel in kernels])

    def check(self, spec: ModelSpec) -> None:
        """Finds a layer for each of the net, by shape and order; see `Source`."""
        self._find_layers(_sketch(spec), spec)

    def fill(self, model: keras.Model, spec: ModelSpec) -> list[str]:
        """Takes the weights layer by layer; see `Source`."""
        tensors = numbers = 0
        pairs = self._find_layers(keras_walk.walk(model).steps, spec)
        for layer, step in pairs:
            read = self._weights.read(layer)
            matching.fill(step, torch_weights.values_for(step, read))
            tensors, numbers = tensors + len(read), numbers + sum(value.size for value in read.values())
        names = ', '.join(f'{layer.name} to {step.where}' for layer, step in pairs)
        return [
            f'matched by shape and order: {names}',
            f'took all {tensors} tensors, {numbers} parameters; without a graph, no logits were compared',
        ]

    def _find_layers(self, steps: list[Step], spec: ModelSpec) -> list[tuple[torch_weights.Layer, Step]]:
        with_values = [step for step in steps if step.values]
        layers = torch_weights.find_layers(self._weights, with_values, _describe(spec), spec.image_size)
        return list(zip(layers, with_values, strict=True))


def _sketch(spec: ModelSpec) -> list[Step]:
    return keras_walk.sketch(spec.make_model).steps


def _describe(spec: ModelSpec) -> str:
    """Returns what messages call a net."""
    narrower = f' of depth_multiplier {spec.depth_multiplier:g}' if spec.depth_multiplier != 1 else ''
    return spec.model_name + narrower


def _sizes(image_size: int, channels: int, model_name: str, found: list[int]) -> Sizes:
    num_classes = found[-1] if found else 1
    return Sizes(image_size, channels, num_classes, find_depth_multiplier(model_name, found[:-1]))


_SOURCES: dict[str, Callable[[str], Source]] = {'.onnx': OnnxSource, '.safetensors': TorchSource}
_PICKLES = ('.pth', '.pt', '.bin', '.ckpt', '.pkl', '.tar')


def open_source(path: str | None) -> Source:
    """Opens a file, by the ending of its name.

    Raises:
        InputError: no file, one that cannot be read, or another kind of file.
    """
    if not path:
        raise InputError(f'--source is missing: a file that ends in {" or ".join(_SOURCES)}')
    stem, ending = os.path.splitext(path)
    if not os.path.exists(path):
        raise InputError(f'--source={path}: no such file')
    if not os.path.isfile(path):
        what = 'a folder' if os.path.isdir(path) else 'a pipe or a device'
        raise InputError(f'--source={path}: {what}, not a file that ends in {" or ".join(_SOURCES)}')
    if ending.lower() in _PICKLES:
        how = _HOW_TO_SAVE.format(name=os.path.basename(path), stem=os.path.basename(stem))
        raise InputError(f'--source={path}: a pickle, which runs code when it is read; save it as .safetensors: {how}')
    if ending.lower() not in _SOURCES:
        raise InputError(f'--source={path}: {_describe_other(path, ending.lower())}')
    return _SOURCES[ending.lower()](path)


def _describe_other(path: str, ending: str) -> str:
    """Returns what a file is whose name ends as none that is read, and what takes it."""
    unknown = f'unknown kind of file; its name must end in {" or ".join(_SOURCES)}'
    try:
        size = os.path.getsize(path)
        kind = checkpoints.recognise(path) if size else None
        if kind in (checkpoints.Format.WEIGHTS_H5, checkpoints.Format.KERAS):
            return _KINDS[kind]
        if kind is not None or ending in ('.index', '.meta'):
            return 'a TensorFlow checkpoint, which needs no import: --checkpoint_path takes it as it is'
        what = other_formats.describe(path) if size else unknown
    except OSError as error:
        return first_line(error)
    if what.startswith('a TFLite file'):
        return 'a TFLite file; its weights are not taken: evaluation and prediction run it'
    return unknown if what == other_formats.UNKNOWN else what


_KINDS = {
    checkpoints.Format.WEIGHTS_H5: (
        'an HDF5 file of Keras, no source: --checkpoint_path takes .weights.h5 of Keras 3 as it is; of older ones save '
        'the model as .keras first'
    ),
    checkpoints.Format.KERAS: 'a .keras file, which needs no import: --checkpoint_path takes it as it is',
}
