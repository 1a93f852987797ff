"""TFLite: every net in every quantization gives the net's results, says what it is, and bad files are one line."""

import functools
import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from flatbuffers.table import Table

from configs.export import ExportConfig
from configs.foreign import ForeignOptions, NetOverrides
from configs.options import make_config
from engine.classifiers import Interface, description, in_batches, load_classifier, tflite_runtime
from export import exporting, tflite, tflite_converter, tflite_metadata
from export.source import Source
from nets.layers import LocalResponseNormalization
from support import optional_packages
from support.errors import InputError
from tests.chains import CHAINS
from tests.served_nets import (
    LABELS,
    assert_agrees,
    assert_refused,
    calibrated_on_smooth_images,
    flip,
    make_source,
    smooth_images,
    with_options,
)

QUANTIZATIONS = ('none', 'float16', 'dynamic', 'int8')
# Most that a probability of these nets, whose weights are random, may differ, and all of them on average.
BOUNDS = {'none': (1e-5, 1e-6), 'float16': (0.01, 1e-3), 'dynamic': (0.2, 0.02), 'int8': (0.25, 0.02)}

# name -> net, interface, options: what a file may take and give, most of it of one small net.
CAFFES = {'preprocessing_name': 'caffe', 'image_size': 12}
VARIANTS: dict[str, tuple[str, Interface, dict[str, Any]]] = {
    **{
        f'{layout}_{order}_{"pixels" if pixels else "scaled"}': (
            'lenet',
            Interface(layout, order, pixels, 'probabilities' if pixels else 'logits'),
            CAFFES,
        )
        for layout in ('NHWC', 'NCHW')
        for order in ('RGB', 'BGR')
        for pixels in (False, True)
    },
    'int8_of_scaled': ('lenet', Interface('NCHW', 'RGB'), {**CAFFES, 'quantize': 'int8'}),
    'int8_of_pixels': (
        'lenet',
        Interface('NHWC', 'RGB', True, 'probabilities'),
        {**CAFFES, 'quantize': 'int8', 'inference_type': 'uint8'},
    ),
    'int8_in_floats': ('lenet', Interface(), {'quantize': 'int8', 'inference_type': 'float32'}),
    'standardised': ('cifarnet', Interface('NHWC', 'RGB', True), {}),
    'standardised_int8': ('cifarnet', Interface('NHWC', 'RGB', True), {'quantize': 'int8'}),
    'fixed_standardised_int8': (
        'cifarnet',
        Interface('NCHW', 'BGR', True, 'probabilities'),
        {'quantize': 'int8', 'batch_size': 5},
    ),
    'gray': ('lenet', Interface(), {'channels': 1}),
    'gray_of_colour': ('lenet', Interface('NHWC', 'BGR', True), {'channels': 1, 'use_grayscale': True}),
    'gray_of_colour_scaled': ('lenet', Interface('NCHW', 'BGR'), {'channels': 1, 'use_grayscale': True}),
    'torchvision_int8': (
        'lenet',
        Interface('NHWC', 'BGR', True),
        {'preprocessing_name': 'torchvision', 'image_size': 12, 'quantize': 'int8'},
    ),
    'wide': ('lenet', Interface(), {'image_size': 28, 'depth_multiplier': 0.5, 'label_names': ()}),
    'wide_float16': ('lenet', Interface(), {'image_size': 28, 'depth_multiplier': 0.5, 'quantize': 'float16'}),
    'wide_dynamic': ('lenet', Interface(), {'image_size': 28, 'depth_multiplier': 0.5, 'quantize': 'dynamic'}),
    'wide_int8': ('lenet', Interface(), {'image_size': 28, 'depth_multiplier': 0.5, 'quantize': 'int8'}),
}

FIXED = 'test_a_fixed_batch_leaves_no_size_open'
# Those that tests name in their code: net, quantization and batch, or a variant.
NAMED = (
    *(('cifarnet', 'none', None), ('lenet', 'none', None), ('lenet', 'int8', None)),
    *('fixed_standardised_int8', 'NHWC_RGB_scaled', 'NHWC_BGR_pixels', 'gray'),
    *(name for name in VARIANTS if name.startswith('wide')),
)
Exports = dict[Any, tuple[Source, Path]]


@pytest.fixture(scope='module')
def exports(request, digits_dir, tmp_path_factory) -> Exports:
    """The nets that the chosen tests ask for, as they do, and the variants, all made by one process."""
    folder = tmp_path_factory.mktemp('tflite')
    asked: set[Any] = set(NAMED)
    for item in request.session.items:
        if item.path == request.path and hasattr(item, 'callspec'):
            case = item.callspec.params
            batch_size = 3 if item.originalname == FIXED else None
            asked.add((case['net'], case.get('quantize', 'int8'), batch_size) if 'net' in case else case.get('name'))
    make = functools.cache(lambda net: make_source(net, digits_dir))
    sources: dict[Any, Source] = {}
    for key in asked:
        if key in VARIANTS:
            net, interface, options = VARIANTS[key]
            sources[key] = make_source(net, digits_dir, interface, **options)
        elif isinstance(key, tuple):
            net, quantize, batch_size = key
            sources[key] = with_options(make(net), quantize=quantize, batch_size=batch_size)
    made = {key: (source, folder / f'{index}.tflite') for index, (key, source) in enumerate(sources.items())}
    with calibrated_on_smooth_images(tflite):
        jobs = [tflite.make_job(source, str(path.with_suffix(''))) for source, path in made.values()]
    tflite_converter.run(jobs)  # at once, as it takes seconds to start
    for job, (source, path) in zip(jobs, made.values(), strict=True):
        tflite_metadata.finish(job.output, source, str(path))
    return made


# ------------------------------------------------------------------------ the same results


@pytest.mark.quick('lenet-none', 'lenet-float16', 'lenet-dynamic', 'cifarnet-int8')
@pytest.mark.parametrize('quantize', QUANTIZATIONS)
@pytest.mark.parametrize('net', CHAINS)
def test_every_net_gives_its_results_in_every_quantization(exports, net, quantize):
    source, path = exports[net, quantize, None]
    images = smooth_images(source.preprocessing)
    classifier = load_classifier(str(path))
    assert classifier.kind == ('TFLite' if quantize == 'none' else f'TFLite {quantize}')
    assert (classifier.spec, classifier.interface, classifier.step) == (source.spec, source.interface, 7)
    assert_agrees(source, path, BOUNDS[quantize])
    found = classifier.probabilities(images)
    one_by_one = in_batches(classifier.probabilities, 1, images[:2])
    in_threes = in_batches(classifier.probabilities, 3, images)
    np.testing.assert_allclose(one_by_one, found[:2], atol=1e-5)
    np.testing.assert_allclose(in_threes, found, atol=1e-5)


@pytest.mark.quick('NCHW_BGR_pixels', 'int8_of_scaled', 'int8_of_pixels', 'standardised', 'gray_of_colour', 'wide')
@pytest.mark.parametrize('name', VARIANTS)
def test_every_interface_gives_the_nets_results(exports, name):
    source, path = exports[name]
    assert_agrees(source, path, BOUNDS[source.options.quantize])


@pytest.mark.quick('cifarnet', 'lenet')
@pytest.mark.parametrize('net', CHAINS)
def test_only_what_has_no_integer_kernel_stays_in_floats(exports, net):
    source, path = exports[net, 'int8', None]
    tensors = Interpreter(str(path)).get_tensor_details()
    in_floats = [detail for detail in tensors if detail['dtype'] == np.float32]
    layers = [layer for layer in source.model.layers if isinstance(layer, LocalResponseNormalization)]
    assert len(in_floats) == 2 * len(layers)  # what each takes, and what it gives
    assert {detail['dtype'] for detail in tensors} >= {np.int8, np.int32}


def operator_names(path: Path) -> set[str]:
    """Returns the names of the operators in a file."""
    codes = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith('_')}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    used = {model.operatorCodes[operator.opcodeIndex] for graph in model.subgraphs for operator in graph.operators}
    return {codes[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in used}


@pytest.mark.quick('lenet-none')
@pytest.mark.parametrize('quantize', QUANTIZATIONS)
@pytest.mark.parametrize('net', CHAINS)
def test_a_fixed_batch_leaves_no_size_open(exports, net, quantize):
    source, path = exports[net, quantize, 3]
    (images,), (scores,) = (getattr(Interpreter(str(path)), f'get_{kind}_details')() for kind in ('input', 'output'))
    assert images['shape_signature'].tolist() == [3, *source.model.input_shape[1:]]
    assert scores['shape_signature'].tolist() == [3, 10]
    assert not {'SHAPE', 'PACK', 'STRIDED_SLICE'} & operator_names(path)
    assert_agrees(source, path, BOUNDS[quantize], count=7)


def test_a_fixed_batch_of_standardised_images(exports):
    source, path = exports['fixed_standardised_int8']
    assert not {'SHAPE', 'PACK', 'STRIDED_SLICE'} & operator_names(path)
    assert_agrees(source, path, BOUNDS['int8'], count=7)


@pytest.mark.parametrize(
    ('name', 'kind'), [('int8_of_scaled', np.int8), ('int8_of_pixels', np.uint8), ('int8_in_floats', np.float32)]
)
def test_images_and_results_have_the_type_that_is_asked_for(exports, name, kind):
    interpreter = Interpreter(str(exports[name][1]))
    (images,), (results,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert images['dtype'] == results['dtype'] == kind
    if name == 'int8_of_pixels':  # bytes are the pixels, and probabilities in 256 steps
        assert images['quantization'] == (1.0, 0)
        assert results['quantization'] == (1 / 256, 0)


def test_files_shrink_by_their_quantization(exports):
    sizes = {key: path.stat().st_size for key, (_, path) in exports.items()}
    assert sizes['wide'] / sizes['wide_float16'] > 1.9
    assert sizes['wide'] / sizes['wide_dynamic'] > 3.5
    assert sizes['wide'] / sizes['wide_int8'] > 3.5


# ------------------------------------------------------------------------ what a file says of itself


class Fields:
    """A table of a flatbuffer, its fields by their number in the schema."""

    def __init__(self, table: Table) -> None:
        self._table = table

    @classmethod
    def root(cls, content: bytes) -> 'Fields':
        assert content[4:8] == b'M001'
        return cls(Table(content, int.from_bytes(content[:4], 'little')))

    def _place(self, field: int) -> int:
        place = self._table.Offset(4 + 2 * field)
        assert place, f'no field {field}'
        return place + self._table.Pos

    def has(self, field: int) -> bool:
        return bool(self._table.Offset(4 + 2 * field))

    def text(self, field: int) -> str:
        return self._table.String(self._place(field)).decode()

    def byte(self, field: int) -> int:
        return self._table.Bytes[self._place(field)]

    def uint(self, field: int) -> int:
        place = self._place(field)
        return int.from_bytes(self._table.Bytes[place : place + 4], 'little')

    def table(self, field: int) -> 'Fields':
        return Fields(Table(self._table.Bytes, self._table.Indirect(self._place(field))))

    def _vector(self, field: int) -> tuple[int, int]:
        offset = self._place(field) - self._table.Pos
        return self._table.Vector(offset), self._table.VectorLen(offset)

    def tables(self, field: int) -> list['Fields']:
        start, length = self._vector(field)
        return [Fields(Table(self._table.Bytes, self._table.Indirect(start + 4 * i))) for i in range(length)]

    def floats(self, field: int) -> list[float]:
        start, length = self._vector(field)
        return np.frombuffer(self._table.Bytes, np.float32, length, start).tolist()


def read_metadata(path: Path) -> Fields:
    """Returns the ModelMetadata in a file, found as programs find it that read such."""
    model = schema.Model.GetRootAs(path.read_bytes())
    entries = [model.Metadata(index) for index in range(model.MetadataLength())]
    (buffer,) = [entry.Buffer() for entry in entries if entry.Name() == b'TFLITE_METADATA']
    return Fields.root(model.Buffers(buffer).DataAsNumpy().tobytes())


def associated_files(fields: Fields, field: int) -> dict[str, int]:
    return {file.text(0): file.byte(2) for file in fields.tables(field)}


def test_metadata_is_what_other_programs_read(exports):
    metadata = read_metadata(exports['NHWC_RGB_scaled'][1])
    assert [metadata.text(field) for field in (0, 1, 2, 7)] == [
        'lenet',
        'lenet trained on digits, 10 classes',
        'step 7',
        '1.0.0',
    ]
    assert associated_files(metadata, 6) == {'slim.json': 1}
    (graph,) = metadata.tables(3)
    (images,), (scores,) = graph.tables(2), graph.tables(3)
    assert [images.text(0), images.text(1)] == ['images', 'RGB images, NHWC']
    content = images.table(3)
    assert content.byte(0) == 2  # ImageProperties
    assert content.table(1).byte(0) == 1  # RGB
    assert [content.table(1).table(1).uint(field) for field in (0, 1)] == [12, 12]
    (unit,) = images.tables(4)
    assert unit.byte(0) == 1  # NormalizationOptions
    # The net takes blue first, this file red.
    assert unit.table(1).floats(0) == pytest.approx([123.68, 116.779, 103.939])
    assert unit.table(1).floats(1) == [1.0, 1.0, 1.0]
    assert [scores.text(0), scores.table(3).byte(0)] == ['logits', 1]
    assert associated_files(scores, 6) == {'labels.txt': 2}


def test_metadata_follows_the_interface(exports):
    def image_tensor(name: str) -> Fields:
        return read_metadata(exports[name][1]).tables(3)[0].tables(2)[0]

    (unit,) = image_tensor('NHWC_BGR_pixels').tables(4)
    assert (unit.table(1).floats(0), unit.table(1).floats(1)) == ([0.0], [1.0])
    assert not image_tensor('NHWC_BGR_pixels').table(3).table(1).has(0)  # an unknown colour space
    assert image_tensor('gray').table(3).table(1).byte(0) == 2
    (unit,) = image_tensor('gray').tables(4)
    assert (unit.table(1).floats(0), unit.table(1).floats(1)) == ([128.0], [128.0])
    assert not read_metadata(exports['cifarnet', 'none', None][1]).tables(3)[0].tables(2)[0].has(4)
    scores = read_metadata(exports['wide'][1]).tables(3)[0].tables(3)[0]
    assert not scores.has(6)  # without names of classes, no file of them


def test_files_lie_behind_the_model(exports):
    source, path = exports['NHWC_RGB_scaled']
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ['labels.txt', 'slim.json']
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read('labels.txt').decode().splitlines() == list(LABELS)
        said = json.loads(archive.read('slim.json'))
        start = archive.infolist()[0].header_offset
    assert said.pop('crc32') == description.checksum(str(path), start)
    assert said == json.loads(json.dumps(source.description()))


# ------------------------------------------------------------------------ files of others


def convert(make: Callable[..., tf.Tensor], *specs: tf.TensorSpec) -> bytes:
    function = tf.function(make, autograph=False).get_concrete_function(*specs)
    return tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()


def images_spec(*shape: int | None, dtype: tf.DType = tf.float32) -> tf.TensorSpec:
    return tf.TensorSpec(shape, dtype)


def mean_colour(images: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.cast(images, tf.float32), [1, 2])


FOREIGN: dict[str, tuple[Callable[..., tf.Tensor], list[tf.TensorSpec]]] = {
    'any_batch': (mean_colour, [images_spec(None, 8, 8, 3)]),
    'one': (lambda images: tf.reshape(mean_colour(images), [1, 3]), [images_spec(1, 8, 8, 3)]),
    'said_any': (lambda images: tf.reshape(mean_colour(images), [1, 3]), [images_spec(None, 8, 8, 3)]),
    'bytes': (mean_colour, [images_spec(None, 8, 8, 3, dtype=tf.uint8)]),
    'channels_first': (lambda images: tf.reduce_mean(images, [2, 3]), [images_spec(None, 3, 8, 8)]),
    'four_axes': (lambda images: tf.reduce_mean(images, [1, 2], keepdims=True), [images_spec(None, 8, 8, 3)]),
    'any_size': (mean_colour, [images_spec(None, None, None, 3)]),
    'two_inputs': (lambda a, b: mean_colour(a + b), [images_spec(1, 8, 8, 3)] * 2),
    'two_outputs': (lambda images: (images + 1.0, mean_colour(images)), [images_spec(1, 8, 8, 3)]),
    'words': (lambda words: tf.identity(words) + 1, [images_spec(1, 8, dtype=tf.int32)]),
    'maps': (lambda images: images * 2.0, [images_spec(1, 8, 8, 3)]),
}


@pytest.fixture(scope='module')
def foreign(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp('foreign')
    paths = {name: folder / f'{name}.tflite' for name in FOREIGN}
    for name, (make, specs) in FOREIGN.items():
        paths[name].write_bytes(convert(make, *specs))
    return {name: str(path) for name, path in paths.items()}


@pytest.mark.parametrize('name', ['any_batch', 'one', 'said_any', 'bytes', 'channels_first', 'four_axes', 'any_size'])
def test_foreign_files_run_on_any_batch(foreign, name):
    asked, are_bytes = NetOverrides(preprocessing_name='lenet', image_size=8), name == 'bytes'
    classifier = load_classifier(foreign[name], asked, ForeignOptions(includes_preprocessing=are_bytes))
    kind = 'TFLite uint8' if are_bytes else 'TFLite'
    assert (classifier.kind, classifier.spec.num_classes, classifier.step) == (kind, 3, -1)
    assert classifier.interface.layout == ('NCHW' if name == 'channels_first' else 'NHWC')
    images = smooth_images(classifier.preprocessing, 5)
    expected = images if are_bytes else classifier.preprocessing.device_eval(images).numpy()
    for batch in (1, 3, 5):
        found = classifier.scores(images[:batch])
        np.testing.assert_allclose(
            found, expected[:batch].mean(axis=(1, 2)), rtol=1e-4, atol=0.5 if are_bytes else 1e-5
        )


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('two_inputs', r'takes 2 tensors, .*; one of images to one is needed'),
        ('two_outputs', r'gives 2 tensors, '),
        ('words', r'takes int32; float32, int8 and uint8 are supported'),
        ('maps', r'gives values of \[1, 8, 8, 3\]; scores are \[batch, classes\]'),
    ],
)
def test_foreign_files_that_are_no_classifiers(foreign, name, message):
    assert_refused(foreign[name], message, preprocessing_name='lenet')


def test_one_of_several_outputs_is_chosen(foreign):
    path, asked = foreign['two_outputs'], NetOverrides(preprocessing_name='lenet')
    with pytest.raises(
        InputError, match=r'gives 2 tensors, (\S+), (\S+); one of images to one is needed; --output_name'
    ):
        load_classifier(path, asked)
    details = tflite_runtime._load(path).get_output_details()
    name = next(detail['name'] for detail in details if len(detail['shape']) == 2)
    classifier = load_classifier(path, asked, ForeignOptions(output_name=name))
    assert classifier.spec.num_classes == 3
    with pytest.raises(InputError, match=f'^--output_name=x: {path} gives {details[0]["name"]}'):
        load_classifier(path, asked, ForeignOptions(output_name='x'))


def test_a_file_that_ends_litert_by_a_signal_is_one_line(tmp_path):
    """It writes more parts of a tensor than there are."""
    path = tmp_path / 'net.tflite'
    images = images_spec(1, 8, 8, 3)
    path.write_bytes(convert(lambda images: sum(tf.split(mean_colour(images), 3, axis=-1)), images))
    schema = optional_packages.load('ai_edge_litert.schema_py_generated', 'testing')
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    (options,) = (
        operator.builtinOptions
        for operator in model.subgraphs[0].operators
        if isinstance(operator.builtinOptions, schema.SplitOptionsT)
    )
    options.numSplits = 7
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b'TFL3')
    path.write_bytes(bytes(builder.Output()))
    assert_refused(path, 'LiteRT crashed with SIG[A-Z]+ while running it: damaged', preprocessing_name='lenet')


# ------------------------------------------------------------------------ damage, and what is missing


@pytest.fixture
def lenet(exports, tmp_path) -> tuple[Path, int]:
    """A copy of an export, and where its archive starts."""
    path = tmp_path / 'net.tflite'
    path.write_bytes(exports['lenet', 'none', None][1].read_bytes())
    with zipfile.ZipFile(path) as archive:
        return path, archive.infolist()[0].header_offset


def with_description(text: bytes, method: int = zipfile.ZIP_STORED) -> Callable[[Path, int], None]:
    def replace(path: Path, start: int) -> None:
        path.write_bytes(path.read_bytes()[:start])
        with zipfile.ZipFile(path, 'a', method) as archive:
            archive.writestr('slim.json', text)

    return replace


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


NOISE = b'\x20\0\0\0TFL3' + np.random.RandomState(0).bytes(5000)
NO_FILE = 'not a TFLite file that LiteRT can load: '
DAMAGES: dict[str, tuple[Callable[[Path, int], object], str]] = {
    'empty': (lambda path, start: cut(path, 0), NO_FILE),
    'half': (lambda path, start: cut(path, start // 2), NO_FILE),
    'noise': (lambda path, start: path.write_bytes(NOISE), NO_FILE),
    'a weight': (lambda path, start: flip(path, start // 2), 'damaged: its checksum does not match; export it again'),
    'archive without its end': (
        lambda path, start: cut(path, path.stat().st_size - 10),
        'damaged: it ends in the middle of slim.json',
    ),
    'description': (
        lambda path, start: flip(path, path.read_bytes().index(b'"model_name"')),
        "damaged: Bad CRC-32 for file 'slim.json'",
    ),
    'nested JSON': (with_description(b'[' * 100_000), 'its description is damaged: '),
    'a list': (with_description(b'[]'), 'its description is damaged: a list, not an object'),
    'a bomb': (
        with_description(b' ' * 10_000_000, zipfile.ZIP_DEFLATED),
        'damaged: slim.json in it is compressed, but TFLite metadata must not be',
    ),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_damage_is_one_line(lenet, capfd, damage):
    path, start = lenet
    harm, message = DAMAGES[damage]
    harm(path, start)
    assert_refused(path, message)
    assert capfd.readouterr().err == ''


def test_running_prints_nothing(exports, capfd):
    source, path = exports['lenet', 'int8', None]
    load_classifier(str(path)).probabilities(smooth_images(source.preprocessing))
    assert capfd.readouterr().err == ''


def test_the_missing_package_is_named(exports, monkeypatch):
    def load(package: str, purpose: str) -> None:
        raise InputError(f"{purpose} needs the extra `export`: pip install -e '.[export]'")

    monkeypatch.setattr(optional_packages, 'load', load)
    with pytest.raises(InputError, match=r'^reading TFLite files needs the extra'):
        load_classifier(str(exports['lenet', 'none', None][1]))
    config = make_config(ExportConfig, checkpoint_path='/nowhere', output_path='/nowhere/a.tflite', format='tflite')
    with pytest.raises(InputError, match=r'^--format=tflite needs the extra'):
        exporting.export(config)


@pytest.mark.full
def test_an_operator_that_tflite_lacks_is_named(tmp_path):
    module = tf.Module()
    module.gamma = tf.function(
        lambda images: {'logits': tf.math.igamma(images, images, name='conv7/gamma')},
        [tf.TensorSpec([None, 3], name='images')],
        autograph=False,
    )
    tf.saved_model.save(module, str(tmp_path / 'net'), signatures=module.gamma)
    output = tmp_path / 'net.tflite'
    with pytest.raises(InputError) as error:
        tflite_converter.run([tflite_converter.Job(str(tmp_path / 'net'), str(output))])
    assert str(error.value) == (
        '--format=tflite: TFLite lacks the operator Igamma of conv7/gamma; the net cannot be exported so'
    )
    assert not output.exists()


def test_a_net_that_is_too_large_is_refused(exports, tmp_path, monkeypatch):
    monkeypatch.setattr(tflite, '_MOST_BYTES', 1000)
    with pytest.raises(InputError, match=r'^--format=tflite: the converter takes less than 2 GiB, but the weights are'):
        tflite.write(exports['lenet', 'none', None][0], str(tmp_path / 'net.tflite'))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('status', 'stderr', 'message'),
    [
        (-9, 'I0000 port.cc', 'the converter was ended by signal 9; it may have lacked memory'),
        (
            1,
            'Traceback\n  File\nOSError: no such file\nI0000',
            'the converter failed with status 1: OSError: no such file',
        ),
        (1, 'x.y.ConverterError: a\nb\n', 'the converter failed with status 1: x.y.ConverterError: a'),
        (3, 'no error\n', 'the converter failed with status 3: no error'),
    ],
)
def test_other_failures_of_the_converter_are_one_line(monkeypatch, status, stderr, message):
    ended = subprocess.CompletedProcess([], status, '', stderr)
    monkeypatch.setattr(subprocess, 'run', lambda *arguments, **options: ended)
    with pytest.raises(InputError) as error:
        tflite_converter.run([tflite_converter.Job('net', 'net.tflite')])
    assert str(error.value) == f'--format=tflite: {message}'
