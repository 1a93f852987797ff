"""Where a decision came from: maps against NumPy and finite differences, the layer they are of, and the page."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from configs import early
from configs.options import make_config
from configs.prediction import PredictConfig
from engine.classifiers.explaining import default_feature_map, feature_maps, make_explainer, overlay
from engine.prediction import predict as predicting
from engine.prediction.predictor import Predictor
from nets.nets_factory import make_model
from support.errors import InputError
from tests.chains import CHAINS

METHODS = ('grad_cam', 'saliency')


def small_net(activation: str = 'softplus') -> keras.Model:
    """Returns a net of 9x11 pixels, 5 positions by 6, and 3 classes; softplus has finite differences everywhere."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    inputs = keras.Input((9, 11, 2))
    net = layers.Conv2D(4, 3, 2, padding='same', activation=activation, name='conv')(inputs)
    net = layers.Flatten()(layers.AveragePooling2D(2, name='pool')(net))
    return keras.Model(inputs, layers.Dense(3)(layers.Dense(8, activation=activation)(net)))


def images_of(model: keras.Model, count: int = 3) -> np.ndarray:
    return np.random.RandomState(1).normal(size=(count, *model.input_shape[1:])).astype(np.float32)


def differences(function: Callable[[np.ndarray], np.ndarray], values: np.ndarray, step: float = 1e-2) -> np.ndarray:
    """Returns the central differences of a function of a batch, [batch], with respect to each value of one example."""
    steps = step * np.eye(values.size, dtype=np.float32).reshape(-1, *values.shape)
    return ((function(values + steps) - function(values - steps)) / (2 * step)).reshape(values.shape)


def enlarged(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a map enlarged bilinearly, with the centres of the corner pixels inside: as Pillow enlarges it."""
    return np.asarray(Image.fromarray(maps.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))


def test_grad_cam_is_that_of_numpy_from_finite_differences() -> None:
    model = small_net()
    images, classes = images_of(model), np.array([2, 0, 1])
    below = keras.Model(model.input, model.get_layer('conv').output)
    above = keras.Model(below.output, model.output)
    maps = make_explainer(model, 'grad_cam')(images, classes)
    assert maps.dtype == np.float32
    assert maps.shape == (3, 9, 11)
    shown = 0
    for image, chosen, found in zip(images, classes, maps, strict=True):

        def logit(values: np.ndarray, chosen: int = chosen) -> np.ndarray:
            return above(values).numpy()[:, chosen]

        features = below(image[np.newaxis]).numpy()[0]
        gradients = differences(logit, features)
        expected = enlarged(np.maximum((features * gradients.mean(axis=(0, 1))).sum(axis=-1), 0), 9, 11)
        shown += expected.max() > 0
        np.testing.assert_allclose(found, expected / max(expected.max(), 1e-9), atol=2e-3)
    assert shown >= 2


def test_saliency_is_that_of_finite_differences() -> None:
    model = small_net()
    images, classes = images_of(model), np.array([2, 0, 1])
    maps = make_explainer(model, 'saliency')(images, classes)
    for image, chosen, found in zip(images, classes, maps, strict=True):

        def logit(values: np.ndarray, chosen: int = chosen) -> np.ndarray:
            return model(values).numpy()[:, chosen]

        gradients = differences(logit, image)
        expected = abs(gradients).max(axis=-1)
        np.testing.assert_allclose(found, expected / expected.max(), atol=2e-3)


@pytest.mark.parametrize('method', METHODS)
def test_a_net_that_reads_one_quadrant_has_its_mass_there(method: str) -> None:
    layers = keras.layers
    inputs = keras.Input((16, 16, 1))
    net = layers.Conv2D(2, 3, padding='same', activation='relu', kernel_initializer='ones', name='conv')(inputs)
    outputs = layers.Dense(2, use_bias=False)(layers.Flatten()(net))
    model = keras.Model(inputs, outputs)
    weights = np.zeros((16, 16, 2, 2), np.float32)
    weights[8:, :8, :, 1] = 1  # the lower left quadrant alone speaks for class 1
    model.layers[-1].kernel.assign(weights.reshape(-1, 2))
    image = np.zeros((1, 16, 16, 1), np.float32)
    image[:, 8:, :8] = 1
    heat = make_explainer(model, method)(image, np.array([1]))[0]
    assert heat.max() == 1
    assert heat[7:, :9].sum() > 0.99 * heat.sum()
    assert not make_explainer(model, method)(image, np.array([0])).any(), 'nothing decides for class 0: zeros, not NaN'


@pytest.mark.parametrize('name', CHAINS)
def test_every_net_has_its_last_feature_map_before_pooling(name: str) -> None:
    model = make_model(name, 3, depth_multiplier=1 / 16)
    chosen = default_feature_map(model)
    assert 'pool' not in chosen
    following = list(feature_maps(model))[list(feature_maps(model)).index(chosen) + 1 :]
    assert all('pool' in other for other in following)
    assert min(feature_maps(model)[chosen].shape[1:3]) > 1


def test_a_larger_image_does_not_make_fully_connected_layers_the_feature_map() -> None:
    model = make_model('alexnet_v2', 3, depth_multiplier=1 / 16, image_size=300, global_pool=True)
    assert feature_maps(model)['alexnet_v2/fc6'].shape[1:3] == (4, 4)
    assert default_feature_map(model) == 'alexnet_v2/conv5'


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('precision', ['bfloat16', 'float16'])
def test_half_precision_shows_the_same(precision: str, method: str) -> None:
    nets = [make_model('cifarnet', 10, depth_multiplier=0.25, mixed_precision=each) for each in ('float32', precision)]
    images = images_of(nets[0], 4)
    exact, coarse = (make_explainer(net, method)(images, np.arange(4)) for net in nets)
    assert coarse.dtype == np.float32
    assert exact.max(axis=(1, 2)).min() == 1
    for one, other in zip(exact, coarse, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.95  # ties of max pooling fall otherwise


def test_frozen_weights_are_explained_too() -> None:
    model = small_net()
    images, classes = images_of(model), np.array([2, 0, 1])
    expected = make_explainer(model, 'grad_cam')(images, classes)
    model.trainable = False
    np.testing.assert_array_equal(make_explainer(model, 'grad_cam')(images, classes), expected)


def test_a_second_output_is_not_looked_at() -> None:
    """Such as the logits of an auxiliary head, whose layers do not lead to the logits."""
    model = small_net()
    branch = keras.layers.Conv2D(2, 3, name='aux')(model.get_layer('conv').output)
    both = keras.Model(model.input, [model.output, branch])
    assert default_feature_map(both) == 'conv'
    assert list(feature_maps(both)) == ['conv', 'pool']


def test_a_layer_is_named_with_or_without_the_scope() -> None:
    model = make_model('alexnet_v2', 3, depth_multiplier=1 / 16)
    images, classes = images_of(model, 1), np.array([1])
    maps = [make_explainer(model, 'grad_cam', name)(images, classes) for name in ('conv4', 'alexnet_v2/conv4', None)]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert (maps[0] != maps[2]).any()
    message = '^--explain_layer=fc6: must be one of conv1, pool1, conv2, pool2, conv3, conv4, conv5, pool5$'
    with pytest.raises(InputError, match=message):
        make_explainer(model, 'grad_cam', 'fc6')


def test_a_net_without_convolution_has_saliency_only() -> None:
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)), name='flat')
    assert make_explainer(model, 'saliency')(images_of(model), np.array([0, 1, 1])).max() == 1
    with pytest.raises(InputError, match=r'grad_cam: flat has no convolution .* use --explain=saliency$'):
        make_explainer(model, 'grad_cam')


def test_an_overlay_is_gray_where_the_map_is_zero() -> None:
    image = np.random.RandomState(0).uniform(size=(2, 5, 6, 3))
    heat = np.zeros((2, 5, 6), np.float32)
    heat[:, 2:, 3:] = 1
    drawn = overlay(image, heat)
    assert drawn.dtype == np.uint8
    assert drawn.shape == (2, 5, 6, 3)
    spread = np.ptp(drawn.astype(int), axis=-1)
    assert spread[:, :2].max() < 5 < 30 < spread[:, 2:, 3:].min()
    assert np.corrcoef(drawn[:, :2, :, 0].ravel(), image[:, :2].mean(axis=-1).ravel())[0, 1] > 0.999
    gray = np.broadcast_to(image[..., :1], image.shape)
    assert (overlay(image[..., :1], heat) == overlay(gray, heat)).all()


# ------------------------------------------------------------------------ the page


@pytest.fixture(scope='module')
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp('images')
    for number, image in enumerate(load_digits().images[:3]):
        Image.fromarray((image * 15.9).astype(np.uint8)).save(folder / f'{number}.png')
    (folder / 'broken.png').write_bytes(b'\x89PNG')
    return [str(folder / name) for name in ('0.png', '1.png', 'broken.png', '2.png')]


def config_of(path: object, images: list[str], **options: Any) -> PredictConfig:
    return make_config(PredictConfig, checkpoint_path=str(path), images=tuple(images), devices='cpu', **options)


@pytest.mark.parametrize('method', METHODS)
def test_a_page_has_images_beside_their_explanations(
    trained: Any, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    path = str(tmp_path / 'seen.png')
    assert predicting.predict(config_of(trained.checkpoint_path, pictures, format='json')) == 1
    plain = capsys.readouterr().out
    config = config_of(trained.checkpoint_path, pictures, format='json', visualize=path, explain=method)
    assert predicting.predict(config) == 1
    assert capsys.readouterr().out == plain
    with Image.open(path) as page:
        pixels = np.asarray(page.convert('RGB')).astype(int)
    coloured = np.ptp(pixels, axis=-1) > 60  # the digits are gray, and so are letters, but for those of the error
    quarters = np.array_split(coloured, 4, axis=1)
    assert [quarter.mean() > 0.01 for quarter in quarters] == [False, True, False, True]


def test_explained_is_the_most_likely_class(trained: Any, pictures: list[str]) -> None:
    """From the image as the net takes it."""
    predictor = Predictor(trained.checkpoint_path, devices='cpu')
    config = config_of(trained.checkpoint_path, pictures, visualize='x.png', explain='saliency')
    picture = predicting._make_picture(predictor.classifier, config.output)
    (prediction, image), *_ = predictor.stream([('0', pictures[0])], 3)
    assert image is not None
    picture.add(prediction, image)
    model: Any = predictor.classifier.model
    values = tf.constant(predictor.classifier.preprocessing.device_eval(image[np.newaxis]))
    with tf.GradientTape() as tape:
        tape.watch(values)
        largest = tf.reduce_max(model(values, training=False))
    expected = abs(tape.gradient(largest, values).numpy())[0].max(axis=-1)
    np.testing.assert_allclose(np.asarray(picture._tiles[0][2]), expected / expected.max(), atol=1e-4)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'explain': 'grad_cam'}, '^--explain=grad_cam has no effect without --visualize; leave it out$'),
        (
            {'explain': 'saliency', 'explain_layer': 'conv1', 'visualize': 'x.png'},
            '^--explain_layer=conv1 has no effect with --explain=saliency; only grad_cam uses it; leave it out$',
        ),
        ({'explain_layer': 'conv1', 'visualize': 'x.png'}, '^--explain_layer=conv1 has no effect with --explain=none'),
    ],
)
def test_options_without_effect_are_refused(trained: Any, options: dict[str, Any], message: str) -> None:
    config = config_of(trained.checkpoint_path, ['a.png'], **options)
    for check in (early.check_prediction, predicting.predict):
        with pytest.raises(InputError, match=message):
            check(config)


def test_what_cannot_be_explained_is_refused_before_work(
    trained: Any, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'net.onnx').write_bytes(b'damaged')
    (tmp_path / 'net.tflite').write_bytes(b'damaged')
    (tmp_path / 'saved').mkdir()
    (tmp_path / 'saved' / 'saved_model.pb').write_bytes(b'damaged')
    page = str(tmp_path / 'x.png')
    for name in ('net.onnx', 'net.tflite', 'saved'):
        config = config_of(tmp_path / name, pictures, visualize=page, explain='grad_cam')
        message = f'^--explain=grad_cam: .*{name} is an exported file, which gives no gradients; use the checkpoint'
        with pytest.raises(InputError, match=message):
            predicting.predict(config)
    config = config_of(trained.checkpoint_path, pictures, visualize=page, explain='grad_cam', explain_layer='conv9')
    with pytest.raises(InputError, match=r'^--explain_layer=conv9: must be one of conv1, pool1, .*'):
        predicting.predict(config)
    assert capsys.readouterr().out == ''
    assert not Path(page).exists()
