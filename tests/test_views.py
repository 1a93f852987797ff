"""Test-time augmentation: `--eval_crops` and `--eval_scales`."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from configs.devices import DeviceOptions
from configs.evaluation import EvalOptions
from configs.export import ExportConfig
from configs.options import make_config
from datasets import dataset_factory
from engine import evaluation
from engine.classifiers import load_classifier
from engine.distributed.cluster import SINGLE_PROCESS
from engine.distributed.distribution import make_strategy
from engine.evaluation.measure import EvalSource, measure
from engine.evaluation.subject import open_subject
from engine.evaluation.views import with_views
from export import exporting
from preprocessing import images
from preprocessing.base import Preprocessing
from preprocessing.preprocessing_factory import get_preprocessing
from preprocessing.views import CENTRE, Views
from support.errors import InputError
from tests.runs import eval_config

SIZES = {'caffe': 56, 'cifarnet': 32, 'inception': 56, 'lenet': 28, 'torchvision': 56, 'vgg': 224, 'whole': 32}
PIXELS = np.random.default_rng(0).integers(0, 256, (61, 83, 3), np.uint8)


def views_of(name: str, pixels: np.ndarray, size: int, **views: Any) -> np.ndarray:
    preprocessing = dataclasses.replace(get_preprocessing(name, size), views=Views(**views))
    return preprocessing.host_views(tf.constant(pixels)).numpy()


def corners(image: np.ndarray, size: int) -> list[np.ndarray]:
    """Returns the corners of an image, in the order of `Views.places`."""
    return [
        image[down, right] for down in (slice(size), slice(-size, None)) for right in (slice(size), slice(-size, None))
    ]


def resized(name: str, size: int, scale: float) -> np.ndarray:
    """Returns PIXELS as a preprocessing resizes them before it crops."""
    if name == 'vgg':
        return images.resize_short_side(PIXELS, round(256 * scale)).numpy()
    side = round(size * 8 / 7 * scale)
    if name == 'caffe':
        return np.round(images.resize(PIXELS, (side, side), half_pixel_centers=True).numpy())
    return np.round(images.resize_antialiased(PIXELS, (side, side * 83 // 61)).numpy())


# ------------------------------------------------------------------------ geometry


@pytest.mark.parametrize('name', SIZES)
@pytest.mark.parametrize('shape', [(61, 83), (32, 32), (28, 29), (9, 8)])
def test_the_centre_at_scale_1_is_the_plain_image(name, shape):
    pixels = PIXELS[: shape[0], : shape[1]]
    plain = get_preprocessing(name, SIZES[name]).host_eval(tf.constant(pixels)).numpy()
    np.testing.assert_array_equal(views_of(name, pixels, SIZES[name], crops=5)[0], plain)
    assert views_of(name, pixels, SIZES[name], crops=10, scales=(1.0, 1.25)).shape == (10, *plain.shape)


@pytest.mark.parametrize('name', ['caffe', 'torchvision', 'vgg'])
@pytest.mark.parametrize('scale', [1.0, 1.25])
def test_corners_of_the_resized_image(name, scale):
    size = SIZES[name]
    crops = views_of(name, PIXELS, size, crops=5, scales=(scale,))
    np.testing.assert_array_equal(crops[1:], corners(resized(name, size, scale), size))


@pytest.mark.parametrize('scale', [0.875, 1.0, 1.25])
def test_corners_of_inception_are_resized_windows(scale):
    crops = views_of('inception', PIXELS, 56, crops=5, scales=(scale,))
    start = [int((side - side * 0.875 / scale) / 2) for side in (61, 83)]
    height, width = 61 - 2 * start[0], 83 - 2 * start[1]
    for crop, (y, x) in zip(crops[1:], [(0, 0), (0, -width), (-height, 0), (-height, -width)], strict=True):
        window = PIXELS[y:][:height, x:][:, :width]
        np.testing.assert_array_equal(crop, images.resize(np.float32(window) * np.float32(1 / 255), (56, 56)))


@pytest.mark.parametrize('name', ['cifarnet', 'lenet'])
def test_corners_without_resizing(name):
    """A large image has its own corners; a small one shifts by an eighth of the net's size, over a black border."""
    size = SIZES[name]
    np.testing.assert_array_equal(views_of(name, PIXELS, size, crops=5)[1:], corners(PIXELS, size))
    shift = size // 8
    for sides in ((size, size), (8, 8)):
        pixels = PIXELS[: sides[0], : sides[1]]
        border = (size - sides[0]) // 2 + shift
        padded = np.pad(pixels, [(border, border), (border, border), (0, 0)])
        np.testing.assert_array_equal(views_of(name, pixels, size, crops=5)[1:], corners(padded, size))


def test_corners_of_a_slightly_larger_image_shift_as_much():
    pixels = PIXELS[:34, :61]
    padded = np.pad(pixels, [(3, 3), (0, 0), (0, 0)])  # from the centre, 1, to -3 and 5
    np.testing.assert_array_equal(views_of('cifarnet', pixels, 32, crops=5)[1:], corners(padded, 32))


def test_corners_of_whole_images_continue_them_by_reflection():
    padded = np.pad(images.resize_antialiased(PIXELS, (32, 32)).numpy(), [(4, 4), (4, 4), (0, 0)], mode='reflect')
    np.testing.assert_array_equal(views_of('whole', PIXELS, 32, crops=5)[1:], corners(padded, 32))
    larger = images.resize_antialiased(PIXELS, (48, 48)).numpy()
    np.testing.assert_array_equal(views_of('whole', PIXELS, 32, crops=5, scales=(1.5,))[1:], corners(larger, 32))


def test_an_encoded_image_has_the_views_of_its_pixels():
    encoded = tf.io.encode_png(PIXELS)
    preprocessing = dataclasses.replace(get_preprocessing('inception', 56), views=Views(5, (0.9, 1.1)))
    np.testing.assert_array_equal(preprocessing.host_views(encoded), preprocessing.host_views(tf.constant(PIXELS)))


# ------------------------------------------------------------------------ averages


class Seen:
    """Keeps all batches: an observer."""

    def __init__(self) -> None:
        self.batches: list[Any] = []

    def observe(self, batch: Any) -> None:
        self.batches.append(batch)


def by_hand(path: str, dataset: Any, crops: int, scales: tuple[float, ...]) -> np.ndarray:
    """Returns mean probabilities of each example: the average over a loop of images and views."""
    classifier = load_classifier(path)
    preprocessing: Preprocessing = dataclasses.replace(classifier.preprocessing, views=Views(crops, scales))
    rows = []
    for number in range(dataset.num_examples):
        shown = preprocessing.host_views(dataset.examples.load(tf.constant(number, tf.int64))['image']).numpy()
        if crops == 10:
            shown = np.concatenate([shown, shown[:, :, ::-1]])
        rows.append(np.mean([classifier.probabilities(view[np.newaxis])[0] for view in shown], axis=0))
    return np.array(rows)


@pytest.fixture(scope='module')
def tflite(trained, tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp('tflite') / 'net.tflite')
    exporting.export(
        make_config(
            ExportConfig,
            checkpoint_path=trained.checkpoint_path,
            output_path=path,
            format='tflite',
            includes_preprocessing=True,
        )
    )
    return path


@pytest.mark.quick('checkpoint')
@pytest.mark.parametrize('kind', ['checkpoint', 'tflite'])
def test_averages_over_the_views_of_each_example_once(trained, digits_dir, request, kind):
    """Two replicas, and a last batch that is padded; the rows are probabilities."""
    path = trained.checkpoint_path if kind == 'checkpoint' else request.getfixturevalue('tflite')
    dataset = dataset_factory.get_dataset('digits', str(digits_dir), 'test[:23]')
    devices = DeviceOptions(num_clones=2)
    strategy = make_strategy(devices)
    options = EvalOptions(checkpoint_path=path, eval_crops=10, eval_scales=(1.0, 1.25))
    config = dataclasses.replace(eval_config(path), devices=devices, evaluation=options)
    subject = with_views(_open(path, config, strategy), options, strategy)
    seen = Seen()
    (results,) = measure([subject], EvalSource(dataset, strategy, batch_size=6), (2,), [seen])
    assert results['num_examples'] == 23
    assert np.concatenate([batch.numbers for batch in seen.batches]).tolist() == list(range(23))
    expected = by_hand(path, dataset, 10, (1.0, 1.25))
    np.testing.assert_allclose(np.concatenate([batch.scores[0] for batch in seen.batches]), expected, atol=2e-6)
    assert seen.batches[0].outputs == ('probabilities',)
    assert 'loss' not in results


def _open(path: str, config: Any, strategy: tf.distribute.Strategy) -> Any:
    return open_subject(path, config, strategy, SINGLE_PROCESS)


def test_one_view_is_the_plain_evaluation(trained):
    strategy = make_strategy(DeviceOptions())
    config = eval_config(trained.checkpoint_path, eval_crops=1, eval_scales=(1.0,))
    subject = _open(trained.checkpoint_path, config, strategy)
    assert with_views(subject, config.evaluation, strategy) is subject


def test_ten_crops_are_the_five_and_their_mirror_images(trained, digits_dir):
    dataset = dataset_factory.get_dataset('digits', str(digits_dir), 'test[:9]')
    strategy = make_strategy(DeviceOptions())
    scored = []

    class Recording:
        output, temperature = 'probabilities', 1.0
        preprocessing = load_classifier(trained.checkpoint_path).preprocessing

        def score(self, images: Any) -> np.ndarray:
            scored.append(np.asarray(images))
            return np.full((len(images), 10), 0.1, np.float32)

    for crops in (5, 10):
        subject = with_views(Recording(), EvalOptions(eval_crops=crops), strategy)
        measure([subject], EvalSource(dataset, strategy, batch_size=9), (1,))
    five, ten = scored[:5], scored[5:]
    np.testing.assert_array_equal(ten[::2], five)
    np.testing.assert_array_equal(ten[1::2], np.array(five)[:, :, :, ::-1])
    assert Recording.preprocessing.views is None
    assert Views(10).places[0] == CENTRE


def test_results_and_rows_say_the_average(trained, tmp_path):
    rows, plain = tmp_path / 'rows.jsonl', tmp_path / 'plain.jsonl'
    for path, options in ((plain, {}), (rows, {'eval_crops': 5, 'eval_scales': (1.0, 1.125)})):
        results = evaluation.evaluate(
            eval_config(
                trained.checkpoint_path,
                max_num_batches=1,
                batch_size=50,
                eval_dir=str(tmp_path),
                predictions_path=str(path),
                results_path=str(path.with_suffix('.json')),
                **options,
            )
        )
        written = json.loads(path.with_suffix('.json').read_text())
        assert {name: value for name, value in written.items() if name.startswith('eval_')} == {
            name: list(value) if isinstance(value, tuple) else value for name, value in options.items()
        }
    assert results['num_examples'] == 50
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert np.mean([row['correct'] for row in found]) == results['accuracy']
    assert -np.mean(np.log([row['probability'] for row in found])) == pytest.approx(results['cross_entropy'], rel=1e-5)


def test_event_files_have_a_folder_of_their_own(trained, tmp_path):
    folder = Path(trained.checkpoint_path).parent
    evaluation.evaluate(eval_config(trained.checkpoint_path, max_num_batches=1, batch_size=10, eval_crops=5))
    assert (folder / 'eval_test_views').is_dir()


@pytest.mark.full
def test_compare_averages_for_every_file(trained, tflite, tmp_path):
    path = tmp_path / 'results.json'
    config = eval_config(
        '', compare=(trained.checkpoint_path, tflite), eval_crops=5, batch_size=77, results_path=str(path)
    )
    first, second = evaluation.compare(config)
    alone = evaluation.evaluate(eval_config(trained.checkpoint_path, eval_crops=5, eval_dir=str(tmp_path)))
    assert first['accuracy'] == second['accuracy'] == alone['accuracy']
    assert second['agreement'] == 1.0
    assert second['cross_entropy'] == pytest.approx(alone['cross_entropy'], rel=1e-4)
    assert json.loads(path.read_text())['eval_crops'] == 5


def test_synthetic_images_have_views(trained):
    dataset = dataset_factory.get_dataset('synthetic', None, 'validation[:20]')
    strategy = make_strategy(DeviceOptions())
    way = dataclasses.replace(get_preprocessing('inception', 24), views=Views(5, (1.0, 1.5)))
    batch = next(iter(EvalSource(dataset, strategy, batch_size=4).batches(way)))
    assert batch['image'].shape == (4, 10, 24, 24, 3)


# ------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'eval_crops': 3}, '--eval_crops=3: must be one of 1, 5, 10'),
        ({'eval_scales': (0.1,)}, '--eval_scales=0.1: must be at least 0.25'),
        ({'eval_scales': (1.0, 1.0)}, '--eval_scales=1.0,1.0: must be 1 to 10 different numbers'),
        ({'eval_scales': ()}, '--eval_scales=: must be 1 to 10 different numbers'),
        ({'eval_scales': (float('nan'),)}, '--eval_scales=nan: must be a finite number'),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(InputError) as error:
        EvalOptions(**options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ('name', 'smallest'), [('inception', 0.875), ('caffe', 0.875), ('torchvision', 0.875), ('vgg', 0.875), ('whole', 1)]
)
def test_scales_at_which_no_crop_fits(name, smallest):
    assert views_of(name, PIXELS, 224, crops=5, scales=(smallest,)).shape == (5, 224, 224, 3)
    message = (
        f"--eval_scales=0.8: must be at least {smallest:g} for {name} preprocessing, or the crops of the net's size, "
        '224, do not fit into the image'
    )
    with pytest.raises(InputError) as error:
        views_of(name, PIXELS, 224, scales=(0.8,))
    assert str(error.value) == message
