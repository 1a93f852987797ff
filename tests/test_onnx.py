"""ONNX: every net in every quantization gives the net's results, in a graph that other programs like."""

import dataclasses
import itertools
import json
import os
import re
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from configs.export import ExportConfig, ExportOptions
from configs.foreign import ForeignOptions, NetOverrides
from configs.options import make_config
from datasets import input_pipeline
from datasets.dataset_factory import get_dataset
from engine.classifiers import Interface, load_classifier, onnx_content, softmax
from engine.classifiers.onnx_runtime import open_onnx
from export import onnx_file, onnx_quantization
from export.export_factory import check_options
from export.source import Source, load_source
from export.verification import compare_probabilities
from importing import onnx_file as onnx_source
from nets import nets_factory
from nets.layers import (
    AdaptiveAveragePooling2D,
    BatchNormalization,
    Dropout,
    FullyConnectedConv2D,
    GroupedConv2D,
    LocalResponseNormalization,
)
from nets.variables import slim_variables
from support.errors import InputError
from tests import chains
from tests.served_nets import (
    LABELS,
    NARROW,
    assert_agrees,
    assert_refused,
    calibrated_on_smooth_images,
    flip,
    make_source,
    smooth_images,
    with_options,
)

onnx = pytest.importorskip('onnx', reason='the extra `export` is not installed')
pytest.importorskip('onnx.version_converter')
onnxruntime = pytest.importorskip('onnxruntime', reason='the extra `export` is not installed')
onnx_graph, onnx_layers, onnx_model = (  # they import the former
    pytest.importorskip(f'export.{name}') for name in ('onnx_graph', 'onnx_layers', 'onnx_model')
)

QUANTIZATIONS = ('none', 'int8', 'qdq', 'float16')
# Most that a probability of these nets, whose weights are random, may differ, and all of them on average.
BOUNDS = {'none': (1e-5, 1e-6), 'int8': (0.2, 0.015), 'qdq': (0.2, 0.015), 'float16': (0.01, 1e-3)}
FLOAT, FLOAT16, UINT8, INT64 = (getattr(onnx.TensorProto, name) for name in ('FLOAT', 'FLOAT16', 'UINT8', 'INT64'))
KIND = {'none': 'ONNX', 'int8': 'ONNX int8', 'qdq': 'ONNX qdq', 'float16': 'ONNX float16'}


def own_interface(net: str, layout: str = 'NCHW') -> Interface:
    """Returns the interface of exports made without flags."""
    return Interface(layout, 'BGR' if nets_factory.get_net(net).preprocessing == 'caffe' else 'RGB')


def write(source: Source, path: Path) -> Path:
    with calibrated_on_smooth_images(onnx_file):
        onnx_file.write(source, str(path))
    return path


@pytest.fixture(scope='module')
def sources(digits_dir) -> dict[str, Source]:
    """Every net, narrow and for its smallest images."""
    return {name: make_source(name, digits_dir, own_interface(name)) for name in chains.CHAINS}


@pytest.fixture(scope='module')
def exports(sources, tmp_path_factory) -> dict[tuple[str, str], tuple[Source, Path]]:
    """Every net in every quantization."""
    folder = tmp_path_factory.mktemp('onnx')
    made = {}
    for (name, source), quantize in itertools.product(sources.items(), QUANTIZATIONS):
        changed = with_options(source, quantize=quantize)
        made[name, quantize] = (changed, write(changed, folder / f'{name}-{quantize}.onnx'))
    return made


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


# ------------------------------------------------------------------------ the same results


@pytest.mark.quick('*-none', 'lenet-*')
@pytest.mark.parametrize('quantize', QUANTIZATIONS)
@pytest.mark.parametrize('net', chains.CHAINS)
def test_every_net_gives_its_results_in_every_quantization(exports, net, quantize):
    source, path = exports[net, quantize]
    onnx.checker.check_model(onnx.load(path), full_check=quantize not in ('int8', 'qdq'))
    images = smooth_images(source.preprocessing)
    classifier = load_classifier(str(path))
    assert (classifier.spec, classifier.interface, classifier.step) == (source.spec, source.interface, 7)
    assert classifier.kind == KIND[quantize]
    assert_agrees(source, path, BOUNDS[quantize])
    alone = np.concatenate([classifier.scores(image[np.newaxis]) for image in images[:5]])
    np.testing.assert_allclose(classifier.scores(images)[:5], alone, atol=1e-5)
    if quantize == 'none':
        logits = source.classifier.scores(images)
        np.testing.assert_allclose(classifier.scores(images), logits, rtol=0, atol=1e-5 * np.abs(logits).max())


@pytest.mark.parametrize(
    ('preprocessing', 'options'),
    [
        ('caffe', {}),
        ('cifarnet', {}),
        ('inception', {}),
        ('lenet', {'channels': 1}),
        ('torchvision', {}),
        ('vgg', {}),
        ('cifarnet', {'channels': 1, 'use_grayscale': True}),
        ('inception', {'channels': 1, 'use_grayscale': True}),
    ],
)
def test_every_interface_gives_the_nets_results(digits_dir, tmp_path, preprocessing, options):
    source = make_source('lenet', digits_dir, preprocessing_name=preprocessing, image_size=8, **options)
    images = smooth_images(source.preprocessing, 8)
    expected = source.classifier.probabilities(images)
    assert expected.std(axis=0).mean() > 0.05
    choices = (('NHWC', 'NCHW'), ('RGB', 'BGR'), (False, True), ('logits', 'probabilities'))
    for number, interface in enumerate(itertools.starmap(Interface, itertools.product(*choices))):
        path = write(dataclasses.replace(source, interface=interface), tmp_path / f'{number}.onnx')
        classifier = load_classifier(str(path))
        assert classifier.interface == interface
        np.testing.assert_allclose(classifier.probabilities(images), expected, rtol=0, atol=1e-5, err_msg=interface)
        (output,) = onnx.load(path).graph.output
        assert output.name == interface.output
        assert operators(path).count('Transpose') == (interface.layout == 'NHWC')


@pytest.mark.parametrize('quantize', ['int8', 'qdq', 'float16'])
def test_preprocessing_and_softmax_are_not_rounded(digits_dir, tmp_path, quantize):
    interface = Interface('NHWC', 'BGR', include_preprocessing=True, output='probabilities')
    source = make_source('cifarnet', digits_dir, interface, channels=1, use_grayscale=True, quantize=quantize)
    path = write(source, tmp_path / 'net.onnx')
    for kind in ('Mul', 'ReduceSum', 'ReduceMean', 'LRN', 'Softmax'):
        assert kind in operators(path)
    images = smooth_images(source.preprocessing)
    difference = load_classifier(str(path)).probabilities(images) - source.classifier.probabilities(images)
    assert np.abs(difference).max() < BOUNDS[quantize][0]
    sums = load_classifier(str(path)).scores(images).sum(axis=1)
    np.testing.assert_allclose(sums, 1, atol=1e-6)


@pytest.mark.parametrize('quantize', ['int8', 'qdq'])
@pytest.mark.parametrize('net', chains.CHAINS)
def test_neighbouring_products_fit_into_16_bits(exports, net, quantize):
    """Processors without VNNI add them there, and cut off what is larger: with 0 to 255 for the values."""
    graph = onnx.load(exports[net, quantize][1]).graph
    values = {initializer.name: onnx.numpy_helper.to_array(initializer) for initializer in graph.initializer}
    kernels = [values[node.input[3]] for node in graph.node if node.op_type in ('QLinearConv', 'QGemm')]
    kernels += [
        values[node.input[0]]
        for node in graph.node
        if node.op_type == 'DequantizeLinear' and node.input[0] in values and values[node.input[0]].dtype == np.int8
    ]
    assert kernels
    for kernel in kernels:
        pairs = onnx_quantization.neighbours(kernel.astype(np.int64))
        assert 255 * np.abs(pairs.sum(axis=-1)).max() < 2**15
        largest = np.abs(pairs).max(axis=(1, 2))
        assert largest.max() <= 127
        assert largest.mean() > 90  # less than half a bit is lost


def test_neighbours():
    kernel = np.arange(2 * 3 * 1 * 3).reshape(2, 3, 1, 3)
    assert onnx_quantization.neighbours(kernel)[0].tolist() == [[0, 3], [6, 1], [4, 7], [2, 5], [8, 0]]
    assert onnx_quantization.neighbours(np.array([[1, 2, 3, 4]])).tolist() == [[[1, 2], [3, 4]]]


def test_larger_images_are_convolved(sources, tmp_path):
    """By fully connected layers that are convolutions, with an average behind them."""
    model = nets_factory.make_model('alexnet_v2', 10, image_size=259, depth_multiplier=NARROW, global_pool=True)
    model.set_weights(sources['alexnet_v2'].model.get_weights())
    spec = dataclasses.replace(sources['alexnet_v2'].spec, image_size=259)
    source = dataclasses.replace(sources['alexnet_v2'], model=model, spec=spec)
    path = write(source, tmp_path / 'net.onnx')
    assert operators(path)[-7:] == ['Conv', 'Relu', 'Conv', 'Relu', 'GlobalAveragePool', 'Flatten', 'Gemm']
    images = smooth_images(source.preprocessing, 4)
    expected = source.classifier.scores(images)
    np.testing.assert_allclose(load_classifier(str(path)).scores(images), expected, atol=1e-5 * np.abs(expected).max())


# ------------------------------------------------------------------------ layers


def chain(*steps: keras.Layer, shape: tuple[int, int, int] = (9, 8, 4)) -> keras.Model:
    """A model of layers with random weights."""
    inputs = keras.Input(shape)
    outputs = inputs
    for step in steps:
        outputs = step(outputs)
    model = keras.Model(inputs, outputs, name='net')
    random = np.random.RandomState(0)
    for variable in model.variables:
        low = 0.5 if variable.name == 'moving_variance' else -1
        variable.assign(random.uniform(low, 1, variable.shape))
    return model


def conv(filters: int = 6, size: Any = 3, kind: Callable[..., keras.Layer] = layers.Conv2D, **options) -> keras.Layer:
    return kind(filters, size, **options)


def headed(*steps: keras.Layer) -> list[keras.Layer]:
    return [*steps, layers.Flatten(), layers.Dense(5)]


CHAINS: dict[str, Callable[[], list[keras.Layer]]] = {
    'valid, strides': lambda: headed(conv(strides=(2, 3), activation='relu')),
    'same, strides': lambda: headed(conv(size=(4, 5), strides=(2, 3), padding='same')),
    'dilations': lambda: headed(conv(padding='same', dilation_rate=(2, 1))),
    'no biases': lambda: [conv(use_bias=False), layers.Flatten(), layers.Dense(5, use_bias=False)],
    'groups': lambda: headed(conv(kind=GroupedConv2D, groups=2, padding='same')),
    'fully connected': lambda: [
        conv(7, (9, 8), FullyConnectedConv2D),
        conv(5, 1, FullyConnectedConv2D),
        layers.Reshape((5,)),
    ],
    'fully connected, flattened': lambda: [conv(7, (9, 8), FullyConnectedConv2D), layers.Flatten()],
    'average of one': lambda: [
        conv(7, (9, 8), FullyConnectedConv2D),
        layers.GlobalAveragePooling2D(keepdims=True),
        layers.Reshape((7,)),
    ],
    'pool same': lambda: headed(conv(), layers.MaxPooling2D(3, 2, padding='same')),
    'pool of zeros and negatives': lambda: headed(
        layers.ZeroPadding2D(((2, 1), (0, 3))), layers.MaxPooling2D((2, 3), 2)
    ),
    'pool of zeros and positives': lambda: headed(
        conv(activation='relu'), layers.ZeroPadding2D(((0, 1), (0, 1))), layers.MaxPooling2D(3, 2)
    ),
    'padding twice': lambda: headed(
        layers.ZeroPadding2D(1), layers.ZeroPadding2D(((2, 0), (0, 1))), conv(padding='same', strides=2)
    ),
    'padding at the end': lambda: headed(layers.ZeroPadding2D(1)),
    'normalized': lambda: [
        BatchNormalization(epsilon=0.01),
        conv(),
        layers.BatchNormalization(scale=False),
        layers.Flatten(),
        layers.Dense(6),
        layers.BatchNormalization(center=False),
    ],
    'response': lambda: headed(LocalResponseNormalization(1, 2.0, 0.1, 0.6)),
    'average': lambda: [conv(), layers.GlobalAveragePooling2D(), layers.Dense(5)],
    'regions that overlap': lambda: headed(AdaptiveAveragePooling2D((4, 3))),
    'regions that do not': lambda: headed(AdaptiveAveragePooling2D((3, 4))),
    'more regions than pixels': lambda: headed(AdaptiveAveragePooling2D((12, 8))),
    'dropout': lambda: [Dropout(0.5, name='dropout'), layers.Flatten(), Dropout(0.5, name='more'), layers.Dense(5)],
}


def graph_of(model: keras.Model) -> Any:
    graph = onnx_graph.Graph('net', 'images')
    onnx_layers.write_layers(graph, model)
    graph.finish('logits')
    return graph


def run(graph: Any, images: np.ndarray) -> np.ndarray:
    """Returns the outputs of onnxruntime for images [batch, height, width, channels]."""
    height, width, channels = images.shape[1:]
    model = make_model(
        graph.nodes,
        [tensor_value('images', ('batch', channels, height, width))],
        [tensor_value('logits', None)],
        list(graph.constants.values()),
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    return session.run(None, {'images': images.transpose(0, 3, 1, 2)})[0]


def tensor_value(name: str, shape: Sequence[int | str | None] | None, kind: int = FLOAT) -> Any:
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def make_model(nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], constants: Sequence[Any]) -> Any:
    graph = onnx.helper.make_graph(nodes, 'net', inputs, outputs, constants)
    opsets = [onnx.helper.make_opsetid('', 17), onnx.helper.make_opsetid('another', 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize('name', CHAINS)
def test_layers_compute_the_same(name):
    model = chain(*CHAINS[name]())
    images = np.random.RandomState(1).normal(0, 1, (3, 9, 8, 4)).astype(np.float32)
    expected = np.asarray(model(images))
    assert expected.std() > 0.01
    np.testing.assert_allclose(run(graph_of(model), images), expected, atol=1e-5 * np.abs(expected).max())


def test_padding_is_a_node_only_where_it_must_be():
    padded = {name: [node.op_type for node in graph_of(chain(*CHAINS[name]())).nodes] for name in CHAINS if 'p' in name}
    assert {name for name, found in padded.items() if 'Pad' in found} == {
        'pool of zeros and negatives',
        'padding twice',
        'padding at the end',
    }
    assert padded['padding twice'].count('Pad') == 1


def two_ways() -> keras.Model:
    inputs = keras.Input((9, 8, 4))
    return keras.Model(inputs, layers.Add(name='sum')([inputs, conv(4, padding='same')(inputs)]), name='net')


UNKNOWN: dict[str, tuple[Callable[[], keras.Model], str]] = {
    'layer': (
        lambda: chain(layers.AveragePooling2D(2, name='pool1')),
        'layer pool1: ONNX export has no operator for AveragePooling2D; it may be added',
    ),
    'activation': (
        lambda: chain(conv(name='conv1', activation='tanh')),
        'layer conv1: ONNX export has no operator for Conv2D with the activation tanh; ',
    ),
    'shape': (
        lambda: chain(layers.Reshape((8, 9, 4), name='shape')),
        r'layer shape: ONNX .* for Reshape from \(9, 8, 4\) to \(8, 9, 4\); ',
    ),
    'dense of images': (
        lambda: chain(layers.Dense(5, name='fc')),
        'layer fc: ONNX .* for Dense of images that are not flat',
    ),
    'convolution of one position': (
        lambda: chain(conv(7, (9, 8), FullyConnectedConv2D), conv(5, 1, name='conv2')),
        'layer conv2: ONNX .* for Conv2D behind a fully connected layer; ',
    ),
    'normalization of flattened images': (
        lambda: chain(layers.Flatten(), layers.BatchNormalization(name='bn')),
        'layer bn: ONNX .* for BatchNormalization of flattened images; ',
    ),
    'no chain': (two_ways, 'layer sum of net takes something else than what conv2d.* gives: ONNX export supports only'),
}


@pytest.mark.parametrize('name', UNKNOWN)
def test_what_is_not_known_is_named(name):
    make, message = UNKNOWN[name]
    with pytest.raises(InputError, match=message):
        graph_of(make())


# ------------------------------------------------------------------------ the graph, and what it says of itself


def test_the_graph_is_that_of_the_model_zoo(exports):
    """But for the softmax at its end."""
    _, path = exports['bvlc_alexnet', 'none']
    block = ['Conv', 'Relu', 'LRN', 'MaxPool']
    assert operators(path) == [
        *block, *block, 'Conv', 'Relu', 'Conv', 'Relu', 'Conv', 'Relu', 'MaxPool',
        'Flatten', 'Gemm', 'Relu', 'Gemm', 'Relu', 'Gemm',
    ]  # fmt: skip
    found = {
        node.name: {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        for node in onnx.load(path).graph.node
    }
    assert found['conv1']['strides'] == [4, 4]
    assert [found[f'conv{number}']['group'] for number in range(1, 6)] == [1, 2, 1, 2, 2]
    assert found['norm1'] == pytest.approx({'size': 5, 'alpha': 1e-4, 'beta': 0.75, 'bias': 1.0})
    assert found['pool5'] == {'kernel_shape': [3, 3], 'strides': [2, 2], 'pads': [0, 0, 1, 1]}
    assert found['fc6'] == {'transB': 1}


@pytest.mark.parametrize('net', chains.CHAINS)
def test_names_are_slims(exports, net):
    source, path = exports[net, 'none']
    model = onnx.load(path)
    (images,), (logits,) = model.graph.input, model.graph.output
    side, classes = source.spec.image_size, source.spec.num_classes
    assert (images.name, sizes(images)) == ('images', ['batch', 3, side, side])
    assert (logits.name, sizes(logits)) == ('logits', ['batch', classes])
    assert {value.name for value in model.graph.initializer} >= set(slim_variables(source.model))
    layers_of = {layer.name.split('.')[0] for layer in source.model.layers}
    assert {node.name.split('/')[0] for node in model.graph.node} <= layers_of
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    known = {value.name for value in model.graph.value_info}  # shapes, as tools show them
    assert known == {node.output[0] for node in model.graph.node} - {'logits'}
    assert (model.ir_version, [opset.version for opset in model.opset_import]) == (8, [17])


def sizes(value: Any) -> list[int | str]:
    return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize('quantize', QUANTIZATIONS)
def test_weights_have_the_type_that_is_asked_for(exports, quantize):
    _, path = exports['caffenet', quantize]
    weights = [value for value in onnx.load(path).graph.initializer if np.prod(value.dims) > 1000]
    assert len(weights) == 8
    kind = {'none': 'FLOAT', 'float16': 'FLOAT16'}.get(quantize, 'INT8')
    assert {onnx.TensorProto.DataType.Name(value.data_type) for value in weights} == {kind}
    assert ('QLinearConv' in operators(path)) == (quantize == 'int8')
    pairs = {'QuantizeLinear', 'Conv', 'Gemm'} <= set(operators(path))
    assert pairs == (quantize == 'qdq')
    assert operators(path)[-1] == {'int8': 'QGemm', 'float16': 'Cast'}.get(quantize, 'Gemm')  # logits are not rounded


def test_metadata_is_what_people_look_for(digits_dir, tmp_path):
    source = make_source('lenet', digits_dir, Interface('NHWC', 'RGB'), preprocessing_name='caffe', image_size=8)
    model = onnx.load(write(source, tmp_path / 'net.onnx'))
    said = {entry.key: entry.value for entry in model.metadata_props}
    description = json.loads(said.pop('slim.json'))
    assert description.pop('crc32') == zlib.crc32((tmp_path / 'net.onnx').read_bytes()[: description.pop('bytes')])
    assert description.pop('content') == onnx_content.checksums(model)
    assert description == json.loads(json.dumps(source.description()))
    assert said == {
        'model_name': 'lenet',
        'labels': '\n'.join(LABELS),
        'image_size': '8',
        'layout': 'NHWC',
        'channel_order': 'RGB',
        'mean': '123.68,116.779,103.939',  # of the file's channels: red first
        'std': '1,1,1',
    }
    assert (model.producer_name, model.model_version) == ('tf-slim-image-classification', 7)
    pixels = dataclasses.replace(source, interface=Interface('NHWC', 'RGB', include_preprocessing=True))
    model = onnx.load(write(pixels, tmp_path / 'pixels.onnx'))
    assert not {'mean', 'std'} & {entry.key for entry in model.metadata_props}  # nobody is to apply them


def test_metadata_name_what_each_image_needs(exports):
    _, path = exports['cifarnet', 'none']
    said = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert (said['mean'], said['std'], said['per_image_standardization']) == ('0,0,0', '1,1,1', 'yes')


# ------------------------------------------------------------------------ operators of other years, fixed batches


@pytest.mark.quick('13-none', '13-int8', '21-none', '21-qdq', '21-float16')
@pytest.mark.parametrize('quantize', QUANTIZATIONS)
@pytest.mark.parametrize('opset', range(13, 22))
def test_every_opset_computes_the_same(digits_dir, tmp_path, opset, quantize):
    """With all operators that depend on it: preprocessing of gray images, normalisation, softmax."""
    interface = Interface('NHWC', 'BGR', include_preprocessing=True, output='probabilities')
    options = {'quantize': quantize, 'opset': opset}
    for net, more in (('cifarnet', {'channels': 1, 'use_grayscale': True}), ('alexnet_bn', {})):
        source = make_source(net, digits_dir, interface, **options, **more)
        path = write(source, tmp_path / f'{net}.onnx')
        model = onnx.load(path)
        assert [entry.version for entry in model.opset_import if entry.domain in ('', 'ai.onnx')] == [opset]
        assert model.ir_version == onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid('', opset)])
        onnx.checker.check_model(model, full_check=quantize not in ('int8', 'qdq'))
        assert_agrees(source, path, BOUNDS[quantize])


@pytest.mark.parametrize('opset', [12, 22])
def test_other_opsets_are_refused(opset):
    with pytest.raises(InputError, match=f'^--opset={opset}: must be at (least 13|most 21)$'):
        make_config(ExportConfig, opset=opset)


def static_sizes(path: Path) -> set[tuple[str, ...]]:
    """Returns the names of sizes that a file leaves open."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    values = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    return {tuple(d.dim_param for d in value.type.tensor_type.shape.dim if not d.dim_value) for value in values}


@pytest.mark.quick('*alexnet_bn', 'none-cifarnet')
@pytest.mark.parametrize('net', chains.CHAINS)
@pytest.mark.parametrize('quantize', QUANTIZATIONS)
def test_a_fixed_batch_leaves_no_size_open(sources, exports, tmp_path, net, quantize):
    source = with_options(sources[net], quantize=quantize, batch_size=3)
    path = write(source, tmp_path / 'net.onnx')
    assert static_sizes(path) == {()}
    assert not {'Shape', 'Gather', 'Reshape'} & set(operators(path))
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3
    images = smooth_images(source.preprocessing, 4)
    np.testing.assert_allclose(
        load_classifier(str(path)).probabilities(images),
        load_classifier(str(exports[net, quantize][1])).probabilities(images),
        atol=1e-5 if quantize == 'none' else 0.02,
    )


@pytest.fixture(scope='module')
def slims(shared_path) -> Source:
    """Slim's cifarnet, as it was trained on CIFAR-10."""
    config = make_config(
        ExportConfig,
        checkpoint_path=str(shared_path('goldens/checkpoints/cifarnet_cifar10')),
        model_name='cifarnet',
        dataset_name='cifar10',
        dataset_dir=str(shared_path('data/cifar10')),
        format='onnx',
    )
    return load_source(config.export, config.net, 'NCHW')


@pytest.mark.full
def test_a_trained_net_loses_next_to_nothing(slims, tmp_path):
    """With ranges of 100 images of the training split; on all 10000 of the test split, see docs/export.md."""
    dataset = get_dataset('cifar10', slims.dataset_dir, 'test')
    batch = next(iter(input_pipeline.evaluation_batches(dataset, slims.preprocessing, 1000, 1000)))
    images, labels = batch['image'].numpy(), batch['label'].numpy()
    own = float(np.mean(slims.classifier.scores(images).argmax(axis=-1) == labels))
    assert own > 0.6
    accuracy, size = {}, {}
    for quantize in QUANTIZATIONS:
        source = with_options(slims, quantize=quantize)
        path = tmp_path / f'{quantize}.onnx'
        onnx_file.write(source, str(path))
        assert re.search('the same top-1 in 3[12] of 32', compare_probabilities(source, str(path))[0])
        found = load_classifier(str(path)).scores(images).argmax(axis=-1)
        accuracy[quantize], size[quantize] = float(np.mean(found == labels)), path.stat().st_size
    assert accuracy['none'] == own
    assert all(value >= own - 0.005 for value in accuracy.values())
    assert accuracy['qdq'] == accuracy['int8']
    assert [round(size['none'] / size[name], 1) for name in QUANTIZATIONS] == [1, 4, 4, 2]


# ------------------------------------------------------------------------ files of others

IMAGES = (1, 3, 8, 8)


def node(operator: str, *names: str, **attributes: Any) -> Any:
    *inputs, output = names
    return onnx.helper.make_node(operator, inputs, [output], **attributes)


def constant(name: str, value: Any, dtype: Any = np.float32) -> Any:
    return onnx.numpy_helper.from_array(np.asarray(value, dtype), name)


def foreign_mean(
    shape: Sequence[int | str | None], result: Sequence[int | str | None] | None, kind: int = FLOAT
) -> Any:
    """The mean of each colour."""
    flow = [node('Cast', 'images', 'floats', to=FLOAT), node('GlobalAveragePool', 'floats', 'means')]
    if result is not None and len(result) == 2:
        flow.append(node('Flatten', 'means', 'flat'))
    return make_model(flow, [tensor_value('images', shape, kind)], [tensor_value(flow[-1].output[0], result)], [])


def foreign_zoo() -> Any:
    """For one image, with weights that are inputs too, and a softmax."""
    flow = [
        node('Flatten', 'data_0', 'flat'),
        node('Gemm', 'flat', 'fc8_w', 'fc8_b', 'fc8', transB=1),
        node('Softmax', 'fc8', 'prob_1'),
    ]
    weights = [constant('fc8_w', np.kron(np.eye(3), np.full(64, 1 / 64))), constant('fc8_b', np.zeros(3))]
    inputs = [tensor_value('data_0', IMAGES), tensor_value('fc8_w', (3, 192)), tensor_value('fc8_b', (3,))]
    return make_model(flow, inputs, [tensor_value('prob_1', (1, 3))], weights)


def foreign_reshape() -> Any:
    """It says any batch, and keeps one image only."""
    flow = [node('GlobalAveragePool', 'images', 'means'), node('Reshape', 'means', 'shape', 'flat')]
    images = tensor_value('images', ('N', *IMAGES[1:]))
    return make_model(flow, [images], [tensor_value('flat', ('N', 3))], [constant('shape', (1, 3), np.int64)])


FOREIGN: dict[str, Callable[[], Any]] = {
    'zoo': foreign_zoo,
    'any batch': lambda: foreign_mean(('N', *IMAGES[1:]), ('N', 3)),
    'two images': lambda: foreign_mean((2, *IMAGES[1:]), (2, 3)),
    'four axes': lambda: foreign_mean(('N', *IMAGES[1:]), ('N', 3, 1, 1)),
    'unknown results': lambda: foreign_mean(('N', *IMAGES[1:]), None),
    'any size': lambda: foreign_mean(('N', 3, 'H', 'W'), ('N', 3)),
    'bytes': lambda: foreign_mean(('N', *IMAGES[1:]), ('N', 3), UINT8),
    'float16': lambda: foreign_mean(('N', *IMAGES[1:]), ('N', 3), FLOAT16),
    'said any batch': foreign_reshape,
}
ASKED: dict[str, Any] = {'preprocessing_name': 'lenet', 'image_size': 8}


@pytest.mark.parametrize('name', FOREIGN)
def test_foreign_files_run_on_any_batch(tmp_path, name):
    path = tmp_path / 'net.onnx'
    onnx.save(FOREIGN[name](), path)
    foreign = ForeignOptions(includes_preprocessing=name == 'bytes')
    classifier = load_classifier(str(path), NetOverrides(**ASKED), foreign)
    assert (classifier.kind, classifier.spec.num_classes, classifier.step) == ('ONNX', 3, -1)
    assert classifier.interface.layout == 'NCHW'
    images = smooth_images(classifier.preprocessing, 5)
    given = np.rint(images) if name == 'bytes' else np.asarray(classifier.preprocessing.device_eval(images))
    expected = given.mean(axis=(1, 2))
    if name == 'zoo':
        expected = softmax(expected)
    for batch in (1, 3, 5):
        found = classifier.scores(images[:batch])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[:batch], rtol=1e-5, atol=1e-3 if name == 'float16' else 1e-5)


def identity(*inputs: Any) -> Callable[[], Any]:
    """Gives the first of its inputs as it is, or their sum."""
    flow = [node('Sum' if len(inputs) > 1 else 'Identity', *(value.name for value in inputs), 'result')]
    kind = inputs[0].type.tensor_type.elem_type
    return lambda: make_model(flow, inputs, [tensor_value('result', sizes(inputs[0]), kind)], [])


def one_node(*names: str, **attributes: Any) -> Callable[[], Any]:
    return lambda: make_model([node(*names, **attributes)], [tensor_value('a', IMAGES)], [tensor_value('b', None)], [])


NO_CLASSIFIERS: dict[str, tuple[Callable[[], Any], str]] = {
    'two inputs': (
        identity(tensor_value('a', IMAGES), tensor_value('b', IMAGES)),
        "must have images as its only input; its inputs: 'a', 'b'$",
    ),
    'integers': (identity(tensor_value('a', IMAGES, INT64)), r'takes tensor\(int64\); supported: tensor\(float\), '),
    'images': (
        identity(tensor_value('a', IMAGES)),
        r"gives 'result', tensor\(float\) \[1, 3, 8, 8\]; a classifier gives one value for each class$",
    ),
    'unknown sizes': (
        lambda: foreign_mean(('N', 'C', 'H', 'W'), ('N', 'C')),
        r"does not say how many values it gives: 'flat' is \['N', 'C'\]$",
    ),
    'other operators': (
        one_node('Foo', 'a', 'b', domain='another'),
        r'cannot be opened: its operator another:Foo is not in this onnxruntime$',
    ),
    'no such operator': (
        one_node('Foo', 'a', 'b'),
        r'cannot be opened: its operator Foo is not in this onnxruntime$',
    ),
    'no value': (
        one_node('Add', 'a', 'w', 'b'),
        r"cannot be opened: Invalid model\. Node input 'w' is not a graph input, initializer, or output of a prev",
    ),
}


@pytest.mark.parametrize('name', NO_CLASSIFIERS)
def test_foreign_files_that_are_no_classifiers(tmp_path, name):
    make, message = NO_CLASSIFIERS[name]
    path = tmp_path / 'net.onnx'
    onnx.save(make(), path)
    assert_refused(path, message, **ASKED)


@pytest.mark.parametrize(
    ('opset', 'ir_version', 'message'),
    [
        (99, 8, 'it is of Opset 99, newer than this onnxruntime: pip install -U onnxruntime'),
        (17, 99, 'it is of IR version: 99, newer than this onnxruntime: pip install -U onnxruntime'),
    ],
)
def test_newer_files_are_named_so(tmp_path, opset, ir_version, message):
    model = foreign_zoo()
    model.opset_import[0].version, model.ir_version = opset, ir_version
    (tmp_path / 'net.onnx').write_bytes(model.SerializeToString())
    assert_refused(tmp_path / 'net.onnx', f'cannot be opened: {message}$', **ASKED)


# ------------------------------------------------------------------------ damage, and what is missing


def describe(path: Path, text: str) -> None:
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {'slim.json': text})
    onnx.save(model, path)


def move_weights(path: Path) -> Path:
    """Moves the weights to a file beside; returns it."""
    model = onnx.load(path)
    onnx.save_model(model, path, save_as_external_data=True, location='weights.data', size_threshold=0)
    return path.with_name('weights.data')


NO_FILE = 'cannot be opened: it is no ONNX file, or damaged; copy or download it again$'
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    'text': (lambda path: path.write_text('hello'), NO_FILE),
    'empty': (lambda path: path.write_bytes(b''), NO_FILE),
    'cut': (lambda path: path.write_bytes(path.read_bytes()[:-9999]), NO_FILE),
    'weights': (lambda path: flip(path, path.stat().st_size // 2), 'its checksum does not match: damaged, or changed'),
    'description': (lambda path: describe(path, '{"model": '), 'its description is damaged: Expecting value'),
    'weights elsewhere': (
        lambda path: move_weights(path).unlink(),
        'cannot be opened: the file with its weights, which belongs beside it, is missing or cut short: .*weights.data',
    ),
    'weights cut short': (
        lambda path: move_weights(path).write_bytes(b'abc'),
        'cannot be opened: the file with its weights, which belongs beside it, is missing or cut short: ',
    ),
}


@pytest.mark.parametrize('name', DAMAGES)
def test_damage_is_one_line(exports, tmp_path, capfd, name):
    damage, message = DAMAGES[name]
    path = tmp_path / 'net.onnx'
    path.write_bytes(exports['lenet', 'none'][1].read_bytes())
    damage(path)
    assert_refused(path, message)
    assert capfd.readouterr() == ('', '')


def annotate(model: Any) -> Any:
    model.doc_string = 'mine'
    return model


def edit_labels(model: Any) -> Any:
    """Gives two classes each other's names, so that no byte moves."""
    (labels,) = (entry for entry in model.metadata_props if entry.key == 'labels')
    labels.value = '\n'.join(reversed(labels.value.split('\n')))
    return model


def rename_all(model: Any) -> Any:
    """Numbers the values that nodes give each other, as programs that rewrite graphs do."""
    graph = model.graph
    kept = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    names = {name: str(number) for number, node in enumerate(graph.node) for name in node.output if name not in kept}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    del graph.value_info[:]
    return model


def stride_of_first(model: Any) -> Any:
    (strides,) = (attribute for attribute in model.graph.node[0].attribute if attribute.name == 'strides')
    strides.ints[:] = [2, 2]
    return model


def scale_a_weight(model: Any) -> Any:
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights.raw_data = (np.frombuffer(weights.raw_data, np.float32) * 2).tobytes()
    return model


ANEW = {
    'nothing': lambda model: model,
    'a note': annotate,
    'opset 21': lambda model: onnx.version_converter.convert_version(model, 21),
    'labels': edit_labels,
    'names': rename_all,
    'order': lambda model: onnx.ModelProto.FromString(model.SerializeToString(deterministic=True)),
}


@pytest.mark.parametrize('change', ANEW)
def test_an_export_that_is_saved_anew_is_the_same_net(exports, tmp_path, change):
    source, exported = exports['lenet', 'none']
    path = tmp_path / 'net.onnx'
    onnx.save(ANEW[change](onnx.load(exported)), path)
    if change == 'labels':
        assert path.stat().st_size == exported.stat().st_size
    classifier = load_classifier(str(path))
    assert classifier.spec == source.spec
    images = smooth_images(source.preprocessing, 2)
    np.testing.assert_allclose(classifier.scores(images), source.classifier.scores(images), atol=1e-4)
    assert onnx_source.load(str(path)).description['model'] == json.loads(json.dumps(dataclasses.asdict(source.spec)))


@pytest.mark.parametrize('how', ['flip', scale_a_weight, stride_of_first])
@pytest.mark.parametrize('anew', [*ANEW, None])
def test_damage_is_found_in_what_is_saved_anew_too(exports, tmp_path, how, anew):
    path = tmp_path / 'net.onnx'
    model = onnx.load(exports['lenet', 'none'][1])
    model = ANEW[anew](model) if anew else model
    onnx.save(model if how == 'flip' else how(model), path)
    if how == 'flip':
        flip(path, path.stat().st_size // 2)
    if (how, anew) == (stride_of_first, 'names'):  # a graph of another program, which nothing compares
        return
    for read in (load_classifier, onnx_source.load):
        with pytest.raises(InputError, match='its checksum does not match: damaged, or changed by another program in '):
            read(str(path))


def test_a_text_that_is_not_utf8_is_one_line(exports, tmp_path):
    path = tmp_path / 'net.onnx'
    content = exports['lenet', 'none'][1].read_bytes()
    path.write_bytes(content.replace(b'channel_order', b'channel\xfforder', 1))
    with pytest.raises(InputError, match=r'a text in its metadata_props is not UTF-8: damaged'):
        load_classifier(str(path))
    path.write_bytes(content.replace(b'slim.json', b'slim\xffjson', 1))
    with pytest.raises(InputError, match=r'UTF-8'):
        load_classifier(str(path))


def test_an_export_whose_weights_are_moved_still_says_what_it_is(exports, tmp_path):
    source, exported = exports['lenet', 'none']
    path = tmp_path / 'net.onnx'
    path.write_bytes(exported.read_bytes())
    move_weights(path)
    assert load_classifier(str(path)).spec == source.spec


def test_running_prints_nothing(exports, capfd):
    for quantize in QUANTIZATIONS:
        source, path = exports['caffenet', quantize]
        load_classifier(str(path)).scores(smooth_images(source.preprocessing, 2))
    assert capfd.readouterr() == ('', '')


def test_quantising_prints_nothing_and_leaves_nothing(sources, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))
    (tmp_path / 'temporary').mkdir()
    write(with_options(sources['lenet'], quantize='int8'), tmp_path / 'net.onnx')
    assert sorted(os.listdir(tmp_path)) == ['net.onnx', 'temporary']
    assert not os.listdir(tmp_path / 'temporary')
    assert capfd.readouterr().out == ''


@pytest.mark.parametrize('package', ['onnx', 'onnxruntime'])
def test_the_missing_package_is_named(exports, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"^--format=onnx needs the extra `export`: pip install -e '\.\[export\]'$"):
        check_options(ExportOptions(format='onnx'))
    if package == 'onnxruntime':
        with pytest.raises(InputError, match=r'net|lenet.*: running ONNX files needs the extra `export`'):
            open_onnx(str(exports['lenet', 'none'][1]))


def test_nets_that_no_file_can_hold_are_refused(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_model, '_MOST_BYTES', 1000)
    with pytest.raises(
        InputError, match=r'an ONNX file holds less than 2 GiB, but the weights are 0\.0 GiB; --format=s'
    ):
        write(sources['lenet'], tmp_path / 'net.onnx')
    assert not list(tmp_path.iterdir())


def test_weights_that_float16_cannot_hold_are_found(digits_dir, tmp_path):
    source = make_source('lenet', digits_dir, own_interface('lenet'), quantize='float16')
    source.model.variables[0].assign(source.model.variables[0] * 1e6)
    path = write(source, tmp_path / 'net.onnx')
    with pytest.raises(InputError, match='it gives values that are not finite; nothing was kept'):
        compare_probabilities(source, str(path))
