"""Preprocessing against slim's recorded outputs, its distributions and TensorFlow's per-image operations."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import stats

from configs.training import AugmentOptions
from preprocessing import batches, images, inception, torchvision
from preprocessing.base import Normalization, Preprocessing
from preprocessing.preprocessing_factory import PREPROCESSINGS, get_preprocessing, keeps_grayscale
from preprocessing.views import CENTRE
from support.errors import InputError, first_line
from tests.sources import image_file

SharedPath = Callable[[str], Path]

FILES = {'china': 'china.jpg', 'flower': 'flower.jpg', 'chelsea': 'chelsea.png', 'camera': 'camera.png'}
SLIM_SIZES = {'inception': 224, 'vgg': 224, 'cifarnet': 32, 'lenet': 28}
SIZES = {**SLIM_SIZES, 'caffe': 224, 'torchvision': 224, 'whole': 80}
RANDOM = ['inception', 'vgg', 'cifarnet', 'caffe', 'torchvision', 'whole']
NO_BOXES = tf.zeros([0, 4])
WHOLE_IMAGE = tf.constant([[0.0, 0.0, 1.0, 1.0]])

# golden array -> (preprocessing, image, channels, source_channels)
EVAL_CASES = {
    **{f'{name}{size}_{image}': (name, image, 3, 3) for name, size in SLIM_SIZES.items() for image in FILES},
    'inception224_gray_chelsea': ('inception', 'chelsea', 1, 3),
    'lenet28_gray_chelsea': ('lenet', 'chelsea', 1, 3),
    'cifarnet32_gray_chelsea': ('cifarnet', 'chelsea', 1, 3),
    'lenet28_1ch_camera': ('lenet', 'camera', 1, 1),
}


# (name, channels, source_channels): all that a preprocessing allows.
LAYOUTS = [
    *((name, 3, 3) for name in SIZES),
    *((name, 1, 3) for name in ('cifarnet', 'inception', 'lenet', 'whole')),
    *((name, 1, 1) for name in ('lenet', 'whole')),
]


def _goldens(shared_path: SharedPath, name: str) -> np.lib.npyio.NpzFile:
    return np.load(shared_path(f'goldens/{name}.npz'))


def _encoded(shared_path: SharedPath, image: str) -> bytes:
    return shared_path(f'goldens/images/{FILES[image]}').read_bytes()


def _photograph(height: int, width: int) -> tf.Tensor:
    """Makes uint8 [height, width, 3] with smooth shapes and sharp edges in every channel."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    channels = [128 + 127 * np.sin(x / 3 + phase) * np.cos(y / 5) * np.sign(x + y - 90) for phase in (0, 1, 2)]
    return tf.constant(np.stack(channels, axis=-1).astype(np.uint8))


def _seeds(count: int) -> tf.Tensor:
    return tf.stack([tf.range(count, dtype=tf.int64), tf.fill([count], tf.constant(5, tf.int64))], axis=1)


def _train_batch(preprocessing: Preprocessing, encoded: bytes, count: int) -> np.ndarray:
    """Returns `count` training outputs of one image: the host stage under tf.data, then one device stage."""
    dataset = tf.data.Dataset.from_tensor_slices(_seeds(count))
    dataset = dataset.map(lambda seed: preprocessing.host_train(encoded, seed, NO_BOXES), num_parallel_calls=2)
    (batch,) = dataset.batch(count)
    return preprocessing.device_train(batch, preprocessing.make_draws([3, 4], count)).numpy()


def _full_preprocessing(name: str) -> Preprocessing:
    return get_preprocessing(
        name, SIZES[name], augment=AugmentOptions(color_distortion='full' if name == 'inception' else 'fast')
    )


# Evaluation and decoding


@pytest.mark.parametrize('image', FILES)
def test_decode_gives_slims_pixels(shared_path: SharedPath, image: str) -> None:
    expected = _goldens(shared_path, 'preprocess_eval')[f'decoded_{image}']
    np.testing.assert_array_equal(images.decode(_encoded(shared_path, image)), expected)


_PICTURE = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
_RGB = Image.fromarray(_PICTURE)
LOSSLESS = {
    'png': image_file(_RGB, 'PNG'),
    'bmp': image_file(_RGB, 'BMP'),
    'webp': image_file(_RGB, 'WEBP', lossless=True),
}


@pytest.mark.parametrize('case', LOSSLESS)
def test_lossless_formats_give_their_pixels(case: str) -> None:
    np.testing.assert_array_equal(images.decode(LOSSLESS[case]), _PICTURE)


def _animated_webp() -> bytes:
    frames = [Image.new('RGB', (40, 30), color) for color in ('red', 'lime')]
    return image_file(frames[0], 'WEBP', save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ('encoded', 'what'),
    [(_animated_webp(), 'an animated WebP'), (image_file(_RGB.convert('P'), 'BMP'), 'a BMP with a palette')],
    ids=['webp', 'bmp'],
)
def test_what_tensorflow_would_read_wrongly_is_refused(encoded: bytes, what: str) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        images.decode(encoded)
    assert f'{what}, which TensorFlow cannot read; save it otherwise, or convert it' in first_line(raised.value)


def _declaring(encoded: bytes, place: int, sides: bytes) -> bytes:
    """Returns an image file whose header has other sides."""
    return encoded[:place] + sides + encoded[place + len(sides) :]


_GIF, _PNG, _JPEG = (image_file(_RGB, name) for name in ('GIF', 'PNG', 'JPEG'))
BOMBS = {
    'gif': _declaring(_GIF, 6, struct.pack('<HH', 50_000, 50_000)),
    'png': _declaring(_PNG, 16, struct.pack('>II', 50_000, 50_000)),
    'png of two thin sides': _declaring(_PNG, 16, struct.pack('>II', 1_000_000, 1_000)),
    'jpeg': _declaring(_JPEG, _JPEG.index(b'\xff\xc0') + 5, struct.pack('>HH', 50_000, 50_000)),
}


@pytest.mark.parametrize('stage', ['decode', 'host_eval', 'host_train'])
@pytest.mark.parametrize('case', BOMBS)
def test_bombs_are_refused(case: str, stage: str) -> None:
    preprocessing = get_preprocessing('inception', 224)
    read: dict[str, Callable[[bytes], tf.Tensor]] = {
        'decode': images.decode,
        'host_eval': preprocessing.host_eval,
        'host_train': lambda encoded: preprocessing.host_train(
            encoded, tf.constant([0, 0], tf.int64), tf.zeros([0, 4])
        ),
    }
    with pytest.raises(
        tf.errors.InvalidArgumentError, match='declares more than the 89,478,485 pixels that are allowed'
    ):
        read[stage](BOMBS[case])


def test_cmyk_becomes_rgb(shared_path: SharedPath) -> None:
    folder = shared_path('data/imagenet_raw_mini/train/n02447366')
    encoded = (folder / 'n02447366_23489.JPEG').read_bytes()
    with Image.open(io.BytesIO(encoded)) as picture:
        assert picture.mode == 'CMYK'
        expected = np.asarray(picture.convert('RGB'), np.int32)
    decoded = images.decode(encoded).numpy()
    assert np.abs(decoded - expected).mean() < 1  # another rounding of the conversion
    window = images.decode_window(encoded, lambda shape: tf.constant([3, 5, 100, 120]))
    np.testing.assert_array_equal(window, decoded[3:103, 5:125])


@pytest.mark.parametrize('case', EVAL_CASES)
def test_evaluation_gives_slims_output(shared_path: SharedPath, case: str) -> None:
    name, image, channels, source_channels = EVAL_CASES[case]
    preprocessing = get_preprocessing(name, SIZES[name], channels=channels, source_channels=source_channels)
    hosted = preprocessing.host_eval(_encoded(shared_path, image))
    result = preprocessing.device_eval(hosted[tf.newaxis])[0]
    low, high = preprocessing.value_range
    expected = _goldens(shared_path, 'preprocess_eval')[case]
    assert hosted.dtype == tf.float32
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 * (high - low))


def _described(pixels: np.ndarray, normalization: Normalization) -> np.ndarray:
    """Returns the net's input as the description has it, of float64 [height, width, channels] in [0, 255]."""
    if normalization.to_grayscale:
        pixels = pixels @ np.array([[0.2989], [0.5870], [0.1140]])
    if normalization.channel_order == 'BGR':
        pixels = pixels[..., ::-1]
    pixels = (pixels - normalization.mean) / normalization.std
    if normalization.per_image:
        pixels = (pixels - pixels.mean()) / max(pixels.std(), 1 / np.sqrt(pixels.size))
    return pixels


@pytest.mark.parametrize(('name', 'channels', 'source_channels'), LAYOUTS)
def test_normalization_says_what_the_device_makes_of_pixels(name: str, channels: int, source_channels: int) -> None:
    preprocessing = get_preprocessing(name, 32, channels=channels, source_channels=source_channels)
    normalization = preprocessing.normalization
    assert len(normalization.mean) == len(normalization.std) == channels
    pixels = _photograph(32, 32).numpy()[..., :source_channels] / 255
    hosted = tf.constant(pixels * preprocessing.host_range, tf.float32)
    result = preprocessing.device_eval(hosted[tf.newaxis])[0]
    low, high = preprocessing.value_range
    np.testing.assert_allclose(
        result, _described(pixels * 255, normalization), rtol=0, atol=1e-5 * max(1, (high - low) / 2)
    )


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('inception', (-1 + 20 / 255, -1 + 200 / 255, 1)),
        ('lenet', (-118 / 128, -28 / 128, 127 / 128)),
        ('whole', (-1 + 20 / 255, -1 + 200 / 255, 1)),
        ('vgg', (10 - 123.68, 100 - 116.78, 255 - 103.94)),
        ('caffe', (255 - 103.939, 100 - 116.779, 10 - 123.68)),
        ('torchvision', ((10 / 255 - 0.485) / 0.229, (100 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225)),
    ],
)
def test_a_pixel_becomes(name: str, expected: tuple[float, float, float]) -> None:
    preprocessing = get_preprocessing(name, 4)
    image = tf.fill([1, 4, 4, 1], preprocessing.host_range / 255) * [10.0, 100.0, 255.0]
    np.testing.assert_allclose(preprocessing.device_eval(image)[0, 1, 2], expected, rtol=1e-5)


@pytest.mark.parametrize(('name', 'reordered'), [('caffe', [3, 2, 1]), ('torchvision', [1, 2, 3])])
def test_inputs_are_shown_in_their_colours(name: str, reordered: list[int]) -> None:
    pixel = tf.constant([[[[1.0, 2.0, 3.0]]]])
    np.testing.assert_array_equal(get_preprocessing(name, 4).reorder_channels(pixel)[0, 0, 0], reordered)


@pytest.mark.parametrize('name', SIZES)
def test_evaluation_images_reach_the_host_range_and_no_further(name: str) -> None:
    preprocessing = get_preprocessing(name, 32)
    halves = np.zeros((64, 64, 3), np.uint8)
    halves[:, 32:] = 255
    hosted = preprocessing.host_eval(tf.io.encode_png(halves))
    assert (np.min(hosted), np.max(hosted)) == (0, pytest.approx(preprocessing.host_range, rel=1e-6))


def _photographs(shared_path: SharedPath) -> list[bytes]:
    """Returns twelve of ImageNet's, high and wide, as files."""
    paths = sorted(shared_path('data/imagenet_raw_mini/train').glob('*/*.JPEG'))
    return [path.read_bytes() for path in paths[:12]]


def test_torchvision_evaluates_what_pillow_resizes(shared_path: SharedPath) -> None:
    host_eval = tf.function(get_preprocessing('torchvision', 224).host_eval)
    for encoded in _photographs(shared_path):
        picture = Image.fromarray(images.decode(encoded).numpy())
        width, height = picture.size
        # As torchvision.transforms.Resize(256) and CenterCrop(224) have it.
        short = min(width, height)
        resized = picture.resize((256 * width // short, 256 * height // short), Image.Resampling.BILINEAR)
        left, top = (round((side - 224) / 2) for side in resized.size)
        expected = np.asarray(resized, np.float32)[top : top + 224, left : left + 224]
        difference = np.abs(host_eval(tf.constant(encoded)) - expected)
        assert difference.max() <= 2
        assert difference.mean() <= 0.3


def _between_centers(pixels: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Returns float64 pixels resized along an axis as OpenCV does with INTER_LINEAR."""
    length = pixels.shape[axis]
    places = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    lower = np.minimum(places.astype(int), length - 2)
    share = np.expand_dims(places - lower, [a for a in range(3) if a != axis])
    return pixels.take(lower, axis) * (1 - share) + pixels.take(lower + 1, axis) * share


def test_caffe_evaluates_the_centre_of_the_squeezed_image(shared_path: SharedPath) -> None:
    encoded = _encoded(shared_path, 'china')
    squeezed = images.decode(encoded).numpy().astype(np.float64)
    for axis in (0, 1):
        squeezed = _between_centers(squeezed, axis, 256)
    hosted = get_preprocessing('caffe', 224).host_eval(encoded)
    np.testing.assert_allclose(hosted, squeezed[16:240, 16:240], rtol=0, atol=0.501)
    np.testing.assert_array_equal(hosted, np.round(hosted))


def test_central_window_is_slims(shared_path: SharedPath) -> None:
    goldens = _goldens(shared_path, 'preprocess_eval')
    windows = np.array([images.window_at(tf.constant([h, w, 3]), 0.875, CENTRE) for h, w in goldens['central_crop_in']])
    np.testing.assert_array_equal(windows[:, 2:], goldens['central_crop_out'])
    np.testing.assert_array_equal(windows[:, :2], (goldens['central_crop_in'] - windows[:, 2:]) // 2)


@pytest.mark.quick('3-jpeg 4:2:0', '1-png')
@pytest.mark.parametrize(
    'encode',
    [
        pytest.param(lambda pixels: tf.io.encode_jpeg(pixels, chroma_downsampling=True), id='jpeg 4:2:0'),
        pytest.param(lambda pixels: tf.io.encode_jpeg(pixels, chroma_downsampling=False), id='jpeg 4:4:4'),
        pytest.param(lambda pixels: tf.io.encode_jpeg(pixels, progressive=True), id='jpeg progressive'),
        pytest.param(lambda pixels: tf.io.encode_jpeg(pixels[..., :1]), id='jpeg gray'),
        pytest.param(tf.io.encode_png, id='png'),
    ],
)
@pytest.mark.parametrize('channels', [3, 1])
def test_decoding_a_window_equals_decoding_then_cropping(encode: Callable, channels: int) -> None:
    encoded = encode(_photograph(75, 101))
    whole = images.decode(encoded, channels).numpy()
    decode_window = tf.function(lambda window: images.decode_window(encoded, lambda _: window, channels))
    rng = np.random.RandomState(0)
    corners = [(0, 0, 75, 101), (0, 0, 1, 1), (74, 100, 1, 1), (16, 16, 16, 16), (15, 31, 18, 2)]
    for y, x, height, width in corners + [_random_window(rng, 75, 101) for _ in range(60)]:
        window = decode_window(tf.constant([y, x, height, width]))
        np.testing.assert_array_equal(window, whole[y : y + height, x : x + width])


def _random_window(rng: np.random.RandomState, height: int, width: int) -> tuple[int, int, int, int]:
    h, w = rng.randint(1, height + 1), rng.randint(1, width + 1)
    return rng.randint(height - h + 1), rng.randint(width - w + 1), h, w


@pytest.mark.parametrize('image', ['china', 'flower', 'chelsea'])
def test_central_window_of_photographs_equals_decoding_then_cropping(shared_path: SharedPath, image: str) -> None:
    encoded = _encoded(shared_path, image)
    window = images.decode_window(encoded, lambda shape: images.window_at(shape, 0.875, CENTRE))
    np.testing.assert_array_equal(window, tf.image.central_crop(images.decode(encoded), 0.875))


@pytest.mark.parametrize('name', SIZES)
@pytest.mark.parametrize('encoded', [b'', b'no image', b'\xff\xd8\xff\xe0 cut'], ids=['empty', 'text', 'cut short'])
def test_undecodable_images_raise(name: str, encoded: bytes) -> None:
    preprocessing = get_preprocessing(name, SIZES[name])
    with pytest.raises(tf.errors.InvalidArgumentError):
        preprocessing.host_train(encoded, tf.constant([1, 2], tf.int64), NO_BOXES)
    with pytest.raises(tf.errors.InvalidArgumentError):
        preprocessing.host_eval(encoded)


# Training: replays of slim's recorded draws


def _replay_inception(shared_path: SharedPath, through: Callable[[tf.Tensor], tf.Tensor]) -> tuple[np.ndarray, ...]:
    """Returns our outputs for the recorded draws, and slim's; `through` is how images reach the device."""
    goldens = _goldens(shared_path, 'preprocess_train_inception_china')
    expected = goldens['kept_images']
    encoded = _encoded(shared_path, 'china')
    windows = np.concatenate([goldens['begin'][:, :2], goldens['size'][:, :2]], axis=1)[: len(expected)]
    crops = [images.crop(images.decode(encoded), tf.constant(window)) for window in windows]
    batch = through(tf.stack([images.resize(crop, (224, 224)) for crop in crops]))
    recorded = {'flip': 'flip_u', 'brightness': 'brightness', 'saturation': 'saturation'}
    draws = {quantity: tf.constant(goldens[key][: len(expected)]) for quantity, key in recorded.items()}
    result = get_preprocessing('inception', 224).device_train(batch, draws).numpy()
    # slim's saturation kernel turned a reddish pixel gray (see batches.adjust_saturation); ours does not.
    turned_gray = np.all(expected == expected[..., :1], axis=-1) & (np.ptp(result, axis=-1) > 0.1)
    assert turned_gray.sum() == 1
    return result[~turned_gray], expected[~turned_gray]


def test_inception_training_replays_slims_draws(shared_path: SharedPath) -> None:
    result, expected = _replay_inception(shared_path, through=tf.identity)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)


def test_inception_training_replays_slims_draws_within_uint8_rounding(shared_path: SharedPath) -> None:
    result, expected = _replay_inception(shared_path, through=images.to_uint8)
    np.testing.assert_allclose(result, expected, rtol=0, atol=2 / 127.5)
    assert np.abs(result - expected).mean() < 0.5 / 127.5


# Training: slim's distributions, with fixed seeds


@pytest.mark.parametrize(('height', 'width'), [(427, 640), (375, 500), (512, 512), (640, 427)])
def test_inception_windows_follow_slims_distribution(shared_path: SharedPath, height: int, width: int) -> None:
    goldens = _goldens(shared_path, 'crop_distribution')
    begin, size = (goldens[f'{part}_{height}x{width}'].astype(int) for part in ('begin', 'size'))
    dataset = tf.data.Dataset.from_tensor_slices(_seeds(2500))
    shape = tf.constant([height, width, 3])
    windows = dataset.map(lambda seed: inception.sample_window(shape, WHOLE_IMAGE, seed))
    y, x, h, w = next(iter(windows.batch(2500))).numpy().T
    assert stats.ks_2samp(h * w, size[:, 0] * size[:, 1]).pvalue > 1e-3
    assert stats.ks_2samp(w / h, size[:, 1] / size[:, 0]).pvalue > 1e-3
    assert stats.ks_2samp(y + h / 2, begin[:, 0] + size[:, 0] / 2).pvalue > 1e-3
    assert stats.ks_2samp(x + w / 2, begin[:, 1] + size[:, 1] / 2).pvalue > 1e-3
    # TensorFlow's sampler places a window narrower than the image one short of its far edge.
    for start, length, side in ((y, h, height), (x, w, width)):
        assert np.all((start + length < side) | (length == side))
        assert np.max((start + length)[length < side]) == side - 1


def test_inception_windows_follow_boxes_when_asked() -> None:
    encoded = tf.io.encode_png(_photograph(60, 60))
    box = tf.constant([[0.4, 0.4, 0.6, 0.6]])
    seed = tf.constant([1, 2], tf.int64)
    by_box = get_preprocessing('inception', 32, augment=AugmentOptions(use_bounding_boxes=True))
    by_image = get_preprocessing('inception', 32)
    whole = by_image.host_train(encoded, seed, NO_BOXES)
    np.testing.assert_array_equal(by_image.host_train(encoded, seed, box), whole)
    np.testing.assert_array_equal(by_box.host_train(encoded, seed, NO_BOXES), whole)
    windows = [inception.sample_window(tf.constant([60, 60, 3]), box, s).numpy() for s in _seeds(200)]
    overlaps = [max(0, min(y + h, 36) - max(y, 24)) * max(0, min(x + w, 36) - max(x, 24)) for y, x, h, w in windows]
    assert min(overlaps) >= 0.1 * 12 * 12
    assert min(h * w for _, _, h, w in windows) < 0.1 * 60 * 60


@pytest.mark.quick('cifarnet-preprocess_train_other_china-cifarnet_-400')
@pytest.mark.parametrize(
    ('name', 'file', 'prefix', 'count'),
    [
        ('inception', 'preprocess_train_inception_china', '', 200),
        ('vgg', 'preprocess_train_other_china', 'vgg_', 150),
        ('cifarnet', 'preprocess_train_other_china', 'cifarnet_', 400),
    ],
)
def test_training_images_follow_slims_distribution(
    shared_path: SharedPath, name: str, file: str, prefix: str, count: int
) -> None:
    goldens = _goldens(shared_path, file)
    batch = _train_batch(get_preprocessing(name, SIZES[name]), _encoded(shared_path, 'china'), count)
    for channel in range(3):
        for key, values in (('ch_mean', batch.mean(axis=(1, 2))), ('ch_std', batch.std(axis=(1, 2)))):
            pvalue = stats.ks_2samp(values[:, channel], goldens[prefix + key][:, channel]).pvalue
            assert pvalue > 1e-3, f'{key} of channel {channel}: p = {pvalue:.1e}'


def _windows_of_torchvision(height: int, width: int, count: int) -> np.ndarray:
    """Samples int [count, 4] (y, x, height, width) as torchvision's RandomResizedCrop does at such sides."""
    rng = np.random.default_rng(0)
    windows: list[tuple[int, int, int, int]] = []
    while len(windows) < count:
        area = height * width * rng.uniform(0.08, 1.0)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            windows.append((rng.integers(height - h + 1), rng.integers(width - w + 1), h, w))
    return np.array(windows)


@pytest.mark.parametrize(('height', 'width'), [(375, 500), (640, 427)])
def test_torchvision_windows_follow_its_distribution(height: int, width: int) -> None:
    dataset = tf.data.Dataset.from_tensor_slices(_seeds(2500))
    shape = tf.constant([height, width, 3])
    windows = dataset.map(lambda seed: torchvision.sample_window(shape, seed))
    y, x, h, w = next(iter(windows.batch(2500))).numpy().T
    assert np.all((y >= 0) & (x >= 0) & (y + h <= height) & (x + w <= width))
    expected_y, expected_x, expected_h, expected_w = _windows_of_torchvision(height, width, 2500).T
    assert stats.ks_2samp(y, expected_y).pvalue > 1e-3
    assert stats.ks_2samp(x, expected_x).pvalue > 1e-3
    assert stats.ks_2samp(h * w, expected_h * expected_w).pvalue > 1e-3
    assert stats.ks_2samp(w / h, expected_w / expected_h).pvalue > 1e-3


@pytest.mark.parametrize(
    ('sides', 'window'), [((10, 1000), (0, 493, 10, 13)), ((1000, 9), (494, 0, 12, 9)), ((1, 1), (0, 0, 1, 1))]
)
def test_torchvision_takes_the_centre_of_what_fits_no_window(
    sides: tuple[int, int], window: tuple[int, int, int, int]
) -> None:
    for seed in _seeds(5):
        assert tuple(torchvision.sample_window(tf.constant([*sides, 3]), seed).numpy()) == window


def test_caffe_crops_at_every_place_of_the_stored_image() -> None:
    y, x = np.mgrid[:32, :32]
    encoded = tf.io.encode_png(np.stack([y, x, y], axis=-1).astype(np.uint8))
    preprocessing = get_preprocessing('caffe', 28)  # of 32 x 32
    dataset = tf.data.Dataset.from_tensor_slices(_seeds(300))
    crops = list(dataset.map(lambda seed: preprocessing.host_train(encoded, seed, NO_BOXES)).as_numpy_iterator())
    for crop in crops:
        np.testing.assert_array_equal(crop - crop[0, 0], np.stack([y, x, y], axis=-1)[:28, :28])
    counts = np.bincount([5 * crop[0, 0, 0] + crop[0, 0, 1] for crop in crops], minlength=25)
    assert counts.size == 25
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(
    ('name', 'quantity', 'low', 'high'),
    [
        ('inception', 'brightness', -32 / 255, 32 / 255),
        ('inception', 'saturation', 0.5, 1.5),
        ('inception', 'hue', -0.2, 0.2),
        ('inception', 'contrast', 0.5, 1.5),
        ('inception', 'flip', 0, 1),
        ('vgg', 'flip', 0, 1),
        ('cifarnet', 'flip', 0, 1),
        ('caffe', 'flip', 0, 1),
        ('torchvision', 'flip', 0, 1),
        ('whole', 'flip', 0, 1),
        ('cifarnet', 'brightness', -63, 63),
        ('cifarnet', 'contrast', 0.2, 1.8),
    ],
)
def test_draws_are_uniform(name: str, quantity: str, low: float, high: float) -> None:
    draws = _full_preprocessing(name).make_draws([1, 2], 4000)[quantity].numpy()
    assert low <= draws.min()
    assert draws.max() <= high
    assert stats.kstest(draws, stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_color_orders_are_equally_frequent() -> None:
    draws = get_preprocessing('inception', 32, augment=AugmentOptions(color_distortion='full')).make_draws([1, 2], 4000)
    assert stats.chisquare(np.bincount(draws['order'], minlength=4)).pvalue > 1e-3


def test_recorded_draws_have_our_ranges(shared_path: SharedPath) -> None:
    goldens = _goldens(shared_path, 'preprocess_train_inception_china')
    draws = get_preprocessing('inception', 224).make_draws([1, 2], 2000)
    for quantity, key in {'flip': 'flip_u', 'brightness': 'brightness', 'saturation': 'saturation'}.items():
        assert stats.ks_2samp(draws[quantity], goldens[key]).pvalue > 1e-3


# Training: batched operations against TensorFlow's, image by image


def _values(count: int = 12) -> tf.Tensor:
    """Makes float32 [count, 16, 16, 3] in [-0.5, 1.5] with equal channels, blacks and negatives."""
    values = np.random.RandomState(0).uniform(-0.5, 1.5, (count, 16, 16, 3)).astype(np.float32)
    values[:, 0] = values[:, 0, :, :1]
    values[:, 1] = 0
    values[:, 2] = -np.abs(values[:, 2])
    values[:, 3, :, 1] = values[:, 3, :, 0]
    values[:, 4] = np.round(values[:, 4])
    return tf.constant(values)


@pytest.mark.parametrize(
    ('batched', 'single', 'low', 'high'),
    [
        (batches.adjust_brightness, lambda image, delta: image + delta, -0.2, 0.2),
        (batches.adjust_contrast, tf.image.adjust_contrast, 0.5, 1.5),
        (batches.adjust_saturation, tf.image.adjust_saturation, 0.5, 1.5),
        (batches.adjust_hue, tf.image.adjust_hue, -0.2, 0.2),
    ],
)
@pytest.mark.parametrize('compiled', [False, True])
def test_batched_operation_equals_tensorflows(
    batched: Callable, single: Callable, low: float, high: float, compiled: bool
) -> None:
    values = _values()
    amounts = np.random.RandomState(1).uniform(low, high, len(values)).astype(np.float32)
    expected = [single(image, amount) for image, amount in zip(values, amounts, strict=True)]
    result = tf.function(batched, jit_compile=compiled)(values, tf.constant(amounts))
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)


def test_grayscale_equals_tensorflows() -> None:
    np.testing.assert_allclose(batches.to_grayscale(_values()), tf.image.rgb_to_grayscale(_values()), atol=1e-6)


@pytest.mark.full
@pytest.mark.parametrize('compiled', [False, True])
def test_full_distortion_equals_tensorflows_operations_in_slims_orders(compiled: bool) -> None:
    operations = {
        'B': ('brightness', tf.image.adjust_brightness),
        'S': ('saturation', tf.image.adjust_saturation),
        'H': ('hue', tf.image.adjust_hue),
        'C': ('contrast', tf.image.adjust_contrast),
    }
    preprocessing = get_preprocessing('inception', 32, augment=AugmentOptions(color_distortion='full'))
    batch = tf.stack([_photograph(32, 32)] * 16)
    draws = preprocessing.make_draws([1, 2], 16)
    assert set(draws['order'].numpy()) == {0, 1, 2, 3}
    result = tf.function(preprocessing.device_train, jit_compile=compiled)(batch, draws)
    for i, order in enumerate(draws['order'].numpy()):
        image = tf.image.convert_image_dtype(batch[i], tf.float32)
        image = image[:, ::-1] if draws['flip'][i] < 0.5 else image
        for letter in ('BSHC', 'SBCH', 'CHBS', 'HSCB')[order]:
            quantity, adjust = operations[letter]
            image = adjust(image, draws[quantity][i])
        expected = (tf.clip_by_value(image, 0, 1) - 0.5) * 2
        np.testing.assert_allclose(result[i], expected, rtol=0, atol=5e-6)


def test_vgg_training_flips_and_subtracts_the_means() -> None:
    batch = tf.stack([_photograph(32, 32)] * 2)
    result = get_preprocessing('vgg', 32).device_train(batch, {'flip': tf.constant([0.4, 0.6])})
    expected = tf.cast(batch, tf.float32) - [123.68, 116.78, 103.94]
    np.testing.assert_array_equal(result[0], expected[0, :, ::-1])
    np.testing.assert_array_equal(result[1], expected[1])


# Training: purity, shapes and errors


@pytest.mark.quick('inception', 'torchvision')
@pytest.mark.parametrize('name', RANDOM)
def test_training_is_a_pure_function_of_the_seed(name: str) -> None:
    preprocessing = _full_preprocessing(name)
    encoded = tf.io.encode_jpeg(_photograph(90, 120))
    host = tf.function(preprocessing.host_train)
    first, again, other = (
        host(encoded, tf.constant(seed, tf.int64), NO_BOXES).numpy() for seed in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(first, again)
    assert np.array_equal(first, other) == (name == 'whole')
    first, again, other = (preprocessing.make_draws(seed, 8) for seed in ([1, 2], [1, 2], [2, 2]))
    for quantity in first:
        np.testing.assert_array_equal(first[quantity], again[quantity])
        assert not np.array_equal(first[quantity], other[quantity])


@pytest.mark.quick('inception', 'whole')
@pytest.mark.parametrize('name', RANDOM)
def test_draws_are_the_same_when_compiled(name: str) -> None:
    preprocessing = _full_preprocessing(name)
    seed = tf.constant([1, 2], tf.int64)
    draws = preprocessing.make_draws(seed, 64)
    compiled = tf.function(preprocessing.make_draws, jit_compile=True)(seed, 64)
    for quantity in draws:
        np.testing.assert_allclose(compiled[quantity], draws[quantity], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('name', SIZES)
def test_replicas_taking_slices_of_the_draws_give_the_batch(name: str) -> None:
    preprocessing = _full_preprocessing(name)
    size = SIZES[name]
    batch = tf.cast(np.random.RandomState(0).randint(0, 256, (6, size, size, 3)), tf.uint8)
    draws = preprocessing.make_draws([1, 2], 6)
    whole = preprocessing.device_train(batch, draws)
    halves = [
        preprocessing.device_train(batch[part], {quantity: values[part] for quantity, values in draws.items()})
        for part in (slice(0, 3), slice(3, 6))
    ]
    np.testing.assert_allclose(tf.concat(halves, axis=0), whole, rtol=0, atol=1e-6)


@pytest.mark.quick('inception-*', 'vgg-3-3', 'lenet-1-1')
@pytest.mark.parametrize(
    ('name', 'channels', 'source_channels'),
    LAYOUTS,
)
def test_shapes_and_types_are_static(name: str, channels: int, source_channels: int) -> None:
    size = SIZES[name]
    preprocessing = get_preprocessing(name, size, channels=channels, source_channels=source_channels)
    host_train = tf.function(preprocessing.host_train).get_concrete_function(
        tf.TensorSpec([], tf.string), tf.TensorSpec([2], tf.int64), tf.TensorSpec([None, 4], tf.float32)
    )
    host_eval = tf.function(preprocessing.host_eval).get_concrete_function(tf.TensorSpec([], tf.string))
    assert (host_train.output_shapes, host_train.output_dtypes) == ([size, size, source_channels], tf.uint8)
    assert (host_eval.output_shapes, host_eval.output_dtypes) == ([size, size, source_channels], tf.float32)
    batch = tf.zeros([2, size, size, source_channels], tf.uint8)
    trained = preprocessing.device_train(batch, preprocessing.make_draws([1, 2], 2))
    evaluated = preprocessing.device_eval(tf.cast(batch, tf.float32))
    for output in (trained, evaluated):
        assert (output.shape, output.dtype) == ([2, size, size, channels], tf.float32)


def test_names_are_slims() -> None:
    assert len(PREPROCESSINGS.keys() - {'caffe', 'torchvision', 'whole'}) == 34
    assert {name for name in PREPROCESSINGS if keeps_grayscale(name)} == {'lenet', 'whole'}
    assert get_preprocessing('resnet_v1_50', 224) == get_preprocessing('vgg', 224)
    assert get_preprocessing('mobilenet_v2', 224) == get_preprocessing('inception', 224)


@pytest.mark.parametrize(
    ('name', 'size', 'options', 'message'),
    [
        (
            'incepton',
            224,
            {},
            r"unknown preprocessing 'incepton' \(did you mean 'inception'\?\); valid: caffe, cifarnet, ",
        ),
        ('vgg', 299, {}, 'image size 299 is too large; use at most 256, or inception'),
        ('vgg', 224, {'channels': 1}, 'vgg preprocessing .* cannot make gray images'),
        ('caffe', 224, {'channels': 1}, 'caffe preprocessing .* cannot make gray images'),
        ('torchvision', 224, {'channels': 1}, 'torchvision preprocessing .* cannot make gray images'),
        (
            'torchvision',
            224,
            {'augment': AugmentOptions(min_crop_area=0.5)},
            '--min_crop_area=0.5: torchvision preprocessing does not have it; inception has',
        ),
        (
            'vgg',
            224,
            {'augment': AugmentOptions(color_distortion='full')},
            '--color_distortion=full: vgg preprocessing does not have it',
        ),
        (
            'lenet',
            28,
            {'augment': AugmentOptions(use_bounding_boxes=True)},
            '--use_bounding_boxes=True: lenet preprocessing does not have it',
        ),
        ('lenet', 0, {}, 'image size 0: must be at least 1'),
        ('lenet', 28, {'source_channels': 1}, 'cannot make 3 channels of 1; decode to 3'),
        (
            'inception',
            224,
            {'channels': 1, 'source_channels': 1},
            'inception preprocessing needs .* 3 channels',
        ),
    ],
)
def test_what_a_preprocessing_cannot_do_is_refused(name: str, size: int, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        get_preprocessing(name, size, **options)
