"""SavedModels: they run without this project, from arrays and from encoded images, and say themselves what they are."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.foreign import ForeignOptions, NetOverrides
from engine.classifiers import Interface, in_batches, load_classifier
from export import saved_model, serving
from export.source import Source
from preprocessing import preprocessing_factory
from support.errors import InputError
from tests.chains import CHAINS
from tests.runs import files
from tests.served_nets import LABELS, assert_refused, export, flip, make_source, smooth_images

FAMILIES = ('caffe', 'cifarnet', 'inception', 'lenet', 'torchvision', 'vgg', 'whole')
PHOTOGRAPHS = ('china.jpg', 'chelsea.png', 'camera.png')
INTERFACES = [
    Interface(layout, order, pixels, output)
    for layout in ('NHWC', 'NCHW')
    for order in ('RGB', 'BGR')
    for pixels in (False, True)
    for output in ('logits', 'probabilities')
]


def write(source: Source, path: Path) -> str:
    saved_model.write(source, str(path))
    return str(path)


def signature(path: str, name: str = 'serving_default') -> Callable[..., np.ndarray]:
    """Returns a function of a SavedModel as TensorFlow loads it, from its one input to its one output."""
    loaded = tf.saved_model.load(path)
    function = loaded.signatures[name]
    (input_name,) = function.structured_input_signature[1]

    def run(values: Any, loaded: Any = loaded) -> np.ndarray:
        (output,) = function(**{input_name: tf.constant(values)}).values()
        return output.numpy()

    return run


# ------------------------------------------------------------------------ the same results


@pytest.fixture(scope='module')
def of_every_net(digits_dir, tmp_path_factory) -> dict[str, tuple[Source, str]]:
    folder = tmp_path_factory.mktemp('saved')
    sources = {name: make_source(name, digits_dir) for name in CHAINS}
    return {name: (source, write(source, folder / name)) for name, source in sources.items()}


@pytest.mark.quick('lenet', 'alexnet_bn')
@pytest.mark.parametrize('name', CHAINS)
def test_every_net_gives_its_results(of_every_net, name):
    source, path = of_every_net[name]
    images = smooth_images(source.preprocessing)
    classifier = load_classifier(path)
    assert (classifier.kind, classifier.spec, classifier.step) == ('SavedModel', source.spec, 7)
    assert classifier.interface == source.interface
    found, expected = classifier.scores(images), source.classifier.scores(images)
    assert expected.std(axis=0).mean() > 1  # they differ from image to image
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    for batch in (1, 3):
        np.testing.assert_allclose(in_batches(classifier.scores, batch, images[:6]), found[:6], rtol=1e-4, atol=1e-4)


@pytest.mark.quick('gray of colour')
@pytest.mark.parametrize(
    'options',
    [
        {'preprocessing_name': 'caffe', 'image_size': 12},
        {'channels': 1},
        {'channels': 1, 'use_grayscale': True},
    ],
    ids=['colour', 'gray', 'gray of colour'],
)
def test_every_interface_gives_the_nets_results(digits_dir, tmp_path, options):
    source = make_source('lenet', digits_dir, **options)
    images = smooth_images(source.preprocessing)
    expected = source.classifier.probabilities(images)
    # For gray nets every second one: the softmax does not look at colours.
    for index, interface in enumerate(INTERFACES if source.spec.channels == 3 else INTERFACES[::2]):
        path = write(dataclasses.replace(source, interface=interface), tmp_path / str(index))
        classifier = load_classifier(path)
        assert classifier.interface == interface
        np.testing.assert_allclose(classifier.probabilities(images), expected, atol=1e-5, err_msg=str(interface))
        assert (np.abs(classifier.scores(images).sum(axis=-1) - 1).max() < 1e-5) == (interface.output != 'logits')


# ------------------------------------------------------------------------ without this project

PROGRAM = """
import json, os, sys
import numpy as np, tensorflow as tf
found = {}
for name, path in json.loads(sys.argv[1]).items():
    loaded = tf.saved_model.load(path)
    function = loaded.signatures['serving_default']
    (images,) = function.structured_input_signature[1].values()
    (output,) = function.structured_outputs
    zeros = function(**{images.name: tf.zeros([2, *images.shape[1:]])})[output]
    found[name] = [images.name, images.shape.as_list(), output, zeros.numpy().tolist(), len(loaded.weights)]
found['modules'] = [name for name in sys.modules if name.split('.')[0] in ('nets', 'export', 'engine')]
print(json.dumps(found))
"""


def test_tensorflow_alone_loads_and_runs_it(of_every_net, tmp_path):
    paths = {name: path for name, (_, path) in of_every_net.items()}
    process = subprocess.run(
        [sys.executable, '-P', '-c', PROGRAM, json.dumps(paths)], cwd=tmp_path, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert found.pop('modules') == []
    assert set(found) == set(of_every_net)
    for name, (image, shape, output, zeros, weights) in found.items():
        source, _ = of_every_net[name]
        assert (image, shape, output) == ('images', [None, *source.model.input_shape[1:]], 'logits')
        expected = source.model(np.zeros([2, *shape[1:]], np.float32), training=False)
        np.testing.assert_allclose(zeros, expected, rtol=1e-4, atol=1e-4)
        assert weights == len(source.model.variables)  # and no training state


def test_the_folder_holds_what_it_says_of_itself(of_every_net):
    source, path = of_every_net['lenet']
    said = json.loads(Path(path, 'assets.extra/slim.json').read_text())
    assert said.pop('crc32') == zlib.crc32(Path(path, 'saved_model.pb').read_bytes())
    assert said == json.loads(json.dumps(source.description()))
    assert Path(path, 'assets.extra/labels.txt').read_text().splitlines() == list(LABELS)
    written = {str(file.relative_to(path)) for file in Path(path).rglob('*') if file.is_file()}
    assert {name for name in written if not name.startswith(('variables/', 'assets.extra/'))} == {
        'saved_model.pb',
        'fingerprint.pb',
    }


# ------------------------------------------------------------------------ encoded images


@pytest.mark.quick('inception')
@pytest.mark.parametrize('family', FAMILIES)
def test_encoded_images_are_prepared_inside(digits_dir, shared_path, tmp_path, family):
    options = {'preprocessing_name': family, 'image_size': 24, 'encoded_input': True}
    source = make_source('lenet', digits_dir, Interface('NCHW', 'BGR', True, 'probabilities'), **options)
    path = write(source, tmp_path / 'net')
    encoded = [shared_path(f'goldens/images/{name}').read_bytes() for name in PHOTOGRAPHS]
    hosted = np.stack([source.preprocessing.host_eval(image) for image in encoded])
    expected = source.classifier.probabilities(hosted)
    assert np.abs(np.diff(expected, axis=0)).max() > 0.1
    run = signature(path)
    np.testing.assert_allclose(run(encoded), expected, atol=1e-5)
    np.testing.assert_allclose(run(encoded[:1]), expected[:1], atol=1e-5)
    # The other signature takes arrays, and is what the project itself runs.
    np.testing.assert_allclose(
        signature(path, 'images')(source.interface.prepare(hosted, source.preprocessing)), expected, atol=1e-5
    )
    np.testing.assert_allclose(load_classifier(path).scores(hosted), expected, atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError):
        run([b'no image'])


def test_the_families_are_all():
    assert {family.__name__.lower() for family in preprocessing_factory.PREPROCESSINGS.values()} == set(FAMILIES)


@pytest.mark.full
def test_the_script_compares_what_it_writes(trained, shared_path, tmp_path, capsys):
    folder = tmp_path / 'net'
    options: dict[str, Any] = {'format': 'saved_model', 'encoded_input': True}
    assert export(trained.checkpoint_path, f'{folder}/', **options) == folder
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith('compared 32 images of digits, split test: ') for line in lines)
    assert 'compared 8 encoded images: probabilities differ by at most 0' in lines
    before = files(folder)
    photographs = str(shared_path('goldens/images')) + '/c*.*'
    capsys.readouterr()
    export(trained.checkpoint_path, folder, overwrite=True, verification_images=photographs, **options)
    assert f'images of {photographs}: probabilities differ' in capsys.readouterr().out
    assert set(files(folder)) == set(before)
    (folder / 'thesis.txt').write_text('mine')
    with pytest.raises(InputError, match=r'holds thesis\.txt, which no export has written: the folder is not replaced'):
        export(trained.checkpoint_path, folder, overwrite=True, **options)


@pytest.mark.full
def test_encoded_results_that_differ_are_refused(digits_dir, tmp_path, monkeypatch):
    source = make_source('lenet', digits_dir, Interface(output='probabilities'), encoded_input=True, image_size=24)
    make = serving.make_encoded_computation
    monkeypatch.setattr(serving, 'make_encoded_computation', lambda source: lambda files: make(source)(files)[:, ::-1])
    path = write(source, tmp_path / 'net')
    with pytest.raises(InputError, match=r'^the export differs: probabilities of encoded images by 0\.\d+; noth'):
        saved_model.verify(source, path)


# ------------------------------------------------------------------------ SavedModels of others


def save(path: Path, make: Callable[..., Any], *specs: tf.TensorSpec, name: str = 'serving_default') -> str:
    module = tf.Module()
    module.run = tf.function(make, specs, autograph=False)
    tf.saved_model.save(module, str(path), signatures={name: module.run})
    return str(path)


def images_spec(*shape: int | None, dtype: tf.DType = tf.float32) -> tf.TensorSpec:
    return tf.TensorSpec(shape, dtype, name='x')


def mean_colour(x: tf.Tensor) -> dict[str, tf.Tensor]:
    return {'y': tf.reduce_mean(tf.cast(x, tf.float32), [1, 2])}


def of_keras(path: Path) -> str:
    images = keras.Input((8, 8, 3))
    keras.Model(images, keras.layers.GlobalAveragePooling2D()(images)).export(path, verbose=False)
    return str(path)


def of_tensorflow_1(path: Path) -> str:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        images = tf.compat.v1.placeholder(tf.float32, [None, 8, 8, 3])
        scale = tf.compat.v1.get_variable('scale', [3], initializer=tf.compat.v1.ones_initializer())
        logits = tf.reduce_mean(images, [1, 2]) * scale
        session.run(tf.compat.v1.global_variables_initializer())
        outputs = {'classes': tf.argmax(logits, 1), 'logits': logits, 'probabilities': tf.nn.softmax(logits)}
        tf.compat.v1.saved_model.simple_save(session, str(path), {'images': images}, outputs)
    return str(path)


FOREIGN: dict[str, Callable[[Path], str]] = {
    'keras': of_keras,
    'tensorflow 1': of_tensorflow_1,
    'one image': lambda path: save(path, mean_colour, images_spec(1, 8, 8, 3)),
    'four axes': lambda path: save(
        path, lambda x: {'y': tf.reduce_mean(x, [1, 2], keepdims=True)}, images_spec(None, 8, 8, 3)
    ),
    'any size': lambda path: save(path, mean_colour, images_spec(None, None, None, 3)),
    'bytes': lambda path: save(path, mean_colour, images_spec(None, 8, 8, 3, dtype=tf.uint8)),
}


@pytest.mark.filterwarnings('ignore:.*(simple_save|build_tensor_info|Deprecated|deprecated)')
@pytest.mark.parametrize('name', FOREIGN)
def test_foreign_ones_run_on_any_batch(tmp_path, name):
    path = FOREIGN[name](tmp_path / 'net')
    asked = NetOverrides(preprocessing_name='lenet', image_size=8)
    classifier = load_classifier(path, asked, ForeignOptions(includes_preprocessing=name == 'bytes'))
    assert (classifier.kind, classifier.spec.num_classes, classifier.step) == ('SavedModel', 3, -1)
    images = smooth_images(classifier.preprocessing, 5)
    expected = images.round() if name == 'bytes' else classifier.preprocessing.device_eval(images).numpy()
    for batch in (1, 3, 5):
        np.testing.assert_allclose(classifier.scores(images[:batch]), expected[:batch].mean(axis=(1, 2)), atol=1e-4)


def twice(x: tf.Tensor) -> dict[str, tf.Tensor]:
    return {'y': x * 2}


IMAGE = images_spec(None, 8, 8, 3)
# What is saved, of which inputs; why it is refused.
UNFIT: dict[str, tuple[Callable[..., Any], list[tf.TensorSpec], str]] = {
    'two inputs': (
        lambda a, b: mean_colour(a + b),
        [tf.TensorSpec([1, 8, 8, 3], name=name) for name in 'ab'],
        'takes 2 inputs, a, b; one of images is needed',
    ),
    'encoded': (
        lambda x: {'y': tf.strings.to_number(x)},
        [images_spec(None, dtype=tf.string)],
        'takes string x; images are float32 or uint8; export it without --encoded_input',
    ),
    'rows': (
        twice,
        [images_spec(None, 8)],
        'takes x of [None, 8]; images have four axes, [batch, height, width, channels]',
    ),
    'any shape': (twice, [tf.TensorSpec(None, name='x')], 'takes x of any shape; images have four axes'),
    'two outputs': (
        lambda x: {'a': x, **mean_colour(x)},
        [IMAGE],
        'gives a, y; one output of floats, or one called logits, is needed',
    ),
    'numbers': (
        lambda x: {'y': tf.argmax(x, 1)},
        [IMAGE],
        'gives y; one output of floats, or one called logits, is needed',
    ),
    'maps': (twice, [IMAGE], 'gives y of (None, 8, 8, 3); scores are [batch, classes]'),
    'classify': (mean_colour, [IMAGE], 'has no signature serving_default, but classify'),
}


@pytest.mark.filterwarnings('ignore:.*(simple_save|build_tensor_info|Deprecated|deprecated)')
def test_one_of_tensorflow_1_is_opened_without_a_word(tmp_path, caplog, capfd):
    path = of_tensorflow_1(tmp_path / 'net')
    caplog.clear()
    capfd.readouterr()
    load_classifier(path, NetOverrides(preprocessing_name='lenet'))
    assert not caplog.records
    assert capfd.readouterr() == ('', '')


@pytest.mark.filterwarnings('ignore:.*(simple_save|build_tensor_info|Deprecated|deprecated)')
def test_one_of_several_outputs_is_chosen(tmp_path):
    path = of_tensorflow_1(tmp_path / 'net')
    asked = NetOverrides(preprocessing_name='lenet')
    classifier = load_classifier(path, asked, ForeignOptions(output_name='probabilities'))
    assert classifier.interface.output == 'probabilities'
    message = '--output_name=classes: .* gives classes, logits, probabilities; one output of floats'
    with pytest.raises(InputError, match=message):
        load_classifier(path, asked, ForeignOptions(output_name='classes'))


@pytest.mark.parametrize('name', UNFIT)
def test_what_is_no_classifier_is_refused(tmp_path, name):
    make, specs, message = UNFIT[name]
    path = save(tmp_path / 'net', make, *specs, name=name if name == 'classify' else 'serving_default')
    assert_refused(path, re.escape(message), preprocessing_name='lenet', image_size=8)


def test_what_cannot_be_run_is_one_line(tmp_path):
    path = save(tmp_path / 'net', lambda x: mean_colour(tf.ensure_shape(x, [7, 8, 8, 3])), IMAGE)
    message = r'cannot be run: Shape of tensor x \[2,8,8,3\] is not compatible'
    assert_refused(path, message, preprocessing_name='lenet')


# ------------------------------------------------------------------------ damage

NO_MODEL = 'not a SavedModel that TensorFlow can load: '
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    'graph cut short': (lambda path: os.truncate(path / 'saved_model.pb', 1000), NO_MODEL),
    'no graph': (lambda path: os.truncate(path / 'saved_model.pb', 0), NO_MODEL),
    'a constant of the graph': (
        lambda path: flip(path / 'saved_model.pb', (path / 'saved_model.pb').read_bytes().index(b'VALID')),
        'its checksum does not match: damaged, or changed by another program; export it again',
    ),
    'no variables': (lambda path: shutil.rmtree(path / 'variables'), NO_MODEL),
    'a weight': (lambda path: flip(next(path.glob('variables/variables.data*')), 1000), NO_MODEL),
    'no description': (
        lambda path: (path / 'assets.extra/slim.json').write_text('{'),
        'its description is damaged: Expecting property name',
    ),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_damage_is_one_line(of_every_net, tmp_path, damage):
    path = tmp_path / 'net'
    shutil.copytree(of_every_net['lenet'][1], path)
    harm, message = DAMAGES[damage]
    harm(path)
    assert_refused(path, message)
