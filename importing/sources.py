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

from engine import checkpoints
from engine.checkpoints import other_formats
from engine.classifiers import description
from engine.classifiers.model_spec import ModelSpec
from importing import onnx_file, torch_weights, verification
from importing.layers import NetLayer, Pairs, SourceLayer, fill, net_layers, pair, sketch_layers
from importing.onnx_graph import Graph, read_graph
from importing.sizes import Sizes, find_depth_multiplier, widths
from nets import nets_factory
from support.errors import InputError, first_line

_WIDENED = ('none', 'float16')  # --quantize, where weights are numbers of float32
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
            InputError: they are of another net: a table of the layers that differ.
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
        self.described = _read_spec(self._file)
        self._graph: Graph | None = None

    def find_sizes(self, model_name: str, image_size: int | None) -> Sizes:
        """Takes all of them from the graph, but for a size that it leaves open; see `Source`."""
        self._graph = read_graph(self._file, image_size or nets_factory.get_net(model_name).image_size)
        side, _, channels = self._graph.extent
        if image_size not in (None, side):
            raise InputError(f'--image_size={image_size}: {self._file.path} takes images of {side} px; leave it out')
        return _sizes(side, channels, model_name, self._graph.layers)

    def check(self, spec: ModelSpec) -> None:
        """Finds a layer for each of the net, by shape and order; see `Source`."""
        self._pair(sketch_layers(spec.make_model), spec)

    def fill(self, model: keras.Model, spec: ModelSpec) -> list[str]:
        """Takes the weights layer by layer, and runs both; see `Source`."""
        graph, pairs = self._pair(net_layers(model), spec)
        tensors, numbers = fill(pairs)
        return [
            f'matched {graph.num_nodes} nodes with {spec.model_name}: {tensors} tensors, {numbers} parameters',
            verification.compare_logits(self._file, graph, pairs, model, spec),
        ]

    def _pair(self, layers: list[NetLayer], spec: ModelSpec) -> tuple[Graph, Pairs]:
        assert self._graph is not None
        return self._graph, pair(self._graph.layers, layers, self._file.path, _describe(spec))


def _read_spec(file: onnx_file.OnnxFile) -> ModelSpec | None:
    """Returns the description in an export of this project; None for foreign files.

    Raises:
        InputError: that is damaged; or the file is not the net alone, in float32.
    """
    if 'model' not in file.description:
        return None
    described = description.read(f'--source={file.path}', file.description)
    spec, interface = described.spec, described.interface
    for flag, is_given in (
        ('--includes_preprocessing', interface.include_preprocessing),
        (f'--channel_order={interface.channel_order}', interface.reverses_channels(spec.make_preprocessing())),
        (f'--quantize={file.description.get("quantize")}', file.description.get('quantize', 'none') not in _WIDENED),
    ):
        if is_given:
            raise InputError(f'--source={file.path}: an export with {flag}; export the net without it')
    return spec


class TorchSource:
    """PyTorch weights, which come without a graph: what can be compared are names and shapes."""

    def __init__(self, path: str):
        self._path, self._layers = path, torch_weights.read_layers(path)
        self.described: ModelSpec | None = None

    def find_sizes(self, model_name: str, image_size: int | None) -> Sizes:
        """Takes the widths from the shapes; see `Source`."""
        kernels = [layer.shapes['kernel'] for layer in self._layers if 'kernel' in layer.shapes]
        channels = kernels[0][1] if kernels else 3
        return _sizes(image_size or nets_factory.get_net(model_name).image_size, channels, model_name, self._layers)

    def check(self, spec: ModelSpec) -> None:
        """Finds a layer for each of the net, by shape and order; see `Source`."""
        self._pair(sketch_layers(spec.make_model), spec)

    def fill(self, model: keras.Model, spec: ModelSpec) -> list[str]:
        """Takes the weights layer by layer; see `Source`."""
        pairs = self._pair(net_layers(model), spec)
        tensors, numbers = fill(pairs)
        names = ', '.join(f'{source.name} to {layer.name}' for source, layer in pairs)
        return [
            f'matched by shape and order: {names}',
            f'took all {tensors} tensors, {numbers} parameters; without a graph, no logits were compared',
        ]

    def _pair(self, layers: list[NetLayer], spec: ModelSpec) -> Pairs:
        return pair(self._layers, layers, self._path, _describe(spec))


def _describe(spec: ModelSpec) -> str:
    """Returns a net's name for messages."""
    narrower = f' of depth_multiplier {spec.depth_multiplier:g}' if spec.depth_multiplier != 1 else ''
    return f'{spec.model_name}{narrower} for images of {spec.image_size} px'


def _sizes(image_size: int, channels: int, model_name: str, layers: list[SourceLayer]) -> Sizes:
    found = widths(layers)
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
    """Describes a file whose extension is not supported, with the command that takes it."""
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
