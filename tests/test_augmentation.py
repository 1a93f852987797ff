"""Shift, RandAugment, erasing and mixing against Pillow, their distributions and NumPy; and runs that use them all."""

import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from configs.options import make_config
from configs.training import AugmentOptions, TrainConfig
from engine.distributed.cluster import SINGLE_PROCESS
from engine.optim.losses import mixed_cross_entropy
from engine.training import plan
from engine.training.setup import open_run
from preprocessing import batches
from preprocessing.augmentation import Augmentation, RandomErasing, RandomShift, make_augmentation
from preprocessing.mixing import Mixing, Targets, symmetric_beta
from preprocessing.preprocessing_factory import get_preprocessing
from preprocessing.rand_augment import OPERATIONS, RandAugment
from support.errors import InputError
from tests.runs import assert_same_values, saved_values, small_config

SIDE = 33
SEED = [1, 2]
MANY = 20000
# (preprocessing, channels, source_channels)
FAMILIES = [
    *((name, 3, 3) for name in ('inception', 'vgg', 'cifarnet', 'lenet', 'caffe', 'torchvision', 'whole')),
    ('inception', 1, 3),
    ('lenet', 1, 1),
]
EVERYTHING: dict[str, Any] = {
    'random_shift': 2,
    'rand_augment_ops': 2,
    'random_erasing_prob': 0.5,
    'mixup_alpha': 0.8,
    'cutmix_alpha': 1.0,
}
OFF = {'rand_augment_magnitude', 'mixup_prob', 'mixup_switch_prob', 'mixup_off_epoch'}  # change nothing alone


def make_images(channels: int = 3) -> np.ndarray:
    """Makes uint8 [5, SIDE, SIDE, channels]: smooth, noise, noise of few values, of one value and another, plain."""
    random = np.random.RandomState(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    smooth = np.stack([128 + 100 * np.sin(x / 3 + k) * np.cos(y / 5 + k) for k in range(3)], axis=-1)
    noise = random.randint(0, 256, (SIDE, SIDE, 3))
    few = random.choice([3, 90, 200], (SIDE, SIDE, 3))
    nearly_plain = np.full((SIDE, SIDE, 3), 77)
    nearly_plain[4:6, 9] = 80
    images = [smooth, noise, few, nearly_plain, np.full((SIDE, SIDE, 3), 40)]
    return np.stack(images).astype(np.uint8)[..., :channels]


def augmented(name: str = 'inception', channels: int = 3, source_channels: int = 3, **options: Any) -> Augmentation:
    augment = AugmentOptions(**options)
    preprocessing = get_preprocessing(name, 32, channels=channels, source_channels=source_channels, augment=augment)
    return make_augmentation(preprocessing, num_examples=100)


def some_batch(count: int, channels: int = 3) -> tf.Tensor:
    return tf.constant(np.random.RandomState(0).randint(0, 256, (count, 32, 32, channels)), tf.uint8)


# ------------------------------------------------------------------------ the operations of RandAugment


def pillows(name: str, image: np.ndarray, magnitude: float, sign: int) -> np.ndarray:
    """Returns Pillow's result for one image."""
    squeezed = image[..., 0] if image.shape[-1] == 1 else image
    picture, strength = Image.fromarray(squeezed), magnitude / 10
    factor, gray = 1 + sign * 0.9 * strength, 128 if squeezed.ndim == 2 else (128, 128, 128)

    def affine(*matrix: float) -> Image.Image:
        return picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=gray)

    operations: dict[str, Callable[[], Image.Image]] = {
        'identity': lambda: picture,
        'auto_contrast': lambda: ImageOps.autocontrast(picture),
        'equalize': lambda: ImageOps.equalize(picture),
        'solarize': lambda: ImageOps.solarize(picture, 256 - int(256 * strength)),
        'posterize': lambda: ImageOps.posterize(picture, 8 - int(4 * strength + 0.5)),
        'contrast': lambda: ImageEnhance.Contrast(picture).enhance(factor),
        'brightness': lambda: ImageEnhance.Brightness(picture).enhance(factor),
        'color': lambda: ImageEnhance.Color(picture).enhance(factor),
        'sharpness': lambda: ImageEnhance.Sharpness(picture).enhance(factor),
        'rotate': lambda: picture.rotate(sign * 30 * strength, Image.Resampling.NEAREST, fillcolor=gray),
        'shear_x': lambda: affine(1, sign * 0.3 * strength, 0, 0, 1, 0),
        'shear_y': lambda: affine(1, 0, 0, sign * 0.3 * strength, 1, 0),
        'translate_x': lambda: affine(1, 0, sign * 0.45 * strength * SIDE, 0, 1, 0),
        'translate_y': lambda: affine(1, 0, 0, 0, 1, sign * 0.45 * strength * SIDE),
    }
    return np.asarray(operations[name]()).reshape(image.shape)


@pytest.mark.parametrize(('magnitude', 'channels'), [(0.0, 3), (4.0, 3), (9.0, 3), (10.0, 3), (7.3, 1)])
def test_operations_are_pillows(magnitude: float, channels: int) -> None:
    """All of them, both ways, on a batch in which every image has another one."""
    images = make_images(channels)
    choices = np.arange(2 * len(OPERATIONS)).repeat(len(images))
    batch = np.tile(images, (2 * len(OPERATIONS), 1, 1, 1))
    result = RandAugment(1, magnitude)(tf.constant(batch), {'rand_augment': tf.constant(choices[:, np.newaxis])})
    assert result.dtype == tf.uint8
    for image, choice, actual in zip(batch, choices, result.numpy(), strict=True):
        name, sign = OPERATIONS[choice // 2], 1 - 2 * int(choice % 2)
        expected = pillows(name, image, magnitude, sign)
        np.testing.assert_array_equal(actual, expected, err_msg=f'{name} {sign}')


def test_operations_follow_each_other_and_compiled_give_the_same_bits() -> None:
    stage = RandAugment(3, 9.0)
    batch = tf.constant(np.tile(make_images(), (8, 1, 1, 1)))
    draws = stage.make_draws(SEED, len(batch))
    expected = batch
    for k in range(3):
        expected = RandAugment(1, 9.0)(expected, {'rand_augment': draws['rand_augment'][:, k : k + 1]})
    np.testing.assert_array_equal(stage(batch, draws), expected)
    compiled = tf.function(stage.__call__, jit_compile=True, autograph=False)
    np.testing.assert_array_equal(compiled(batch, draws), expected)


def test_tiny_images_are_not_too_small() -> None:
    for side in (1, 2):
        batch = tf.fill([28, side, side, 3], tf.constant(9, tf.uint8))
        draws = {'rand_augment': tf.range(28)[:, tf.newaxis]}
        assert RandAugment(1, 9.0)(batch, draws).shape == batch.shape


def test_choices_are_equally_frequent_and_independent() -> None:
    choices = RandAugment(2, 9.0).make_draws(SEED, MANY)['rand_augment'].numpy()
    assert choices.shape == (MANY, 2)
    assert stats.chisquare(np.bincount(choices[:, 0], minlength=28)).pvalue > 1e-3
    both = np.bincount(14 * (choices[:, 0] // 2) + choices[:, 1] // 2, minlength=14 * 14).reshape(14, 14)
    assert stats.chi2_contingency(both).pvalue > 1e-3


# ------------------------------------------------------------------------ shift


def test_shifts_are_crops_of_the_image_padded_by_reflection() -> None:
    images = make_images()
    down, right = [0, 4, -4, 3, -1], [0, -4, 2, 4, 0]
    shifted = RandomShift(4)(tf.constant(images), {'shift_down': tf.constant(down), 'shift_right': tf.constant(right)})
    padded = np.pad(images, [(0, 0), (4, 4), (4, 4), (0, 0)], 'reflect')
    for i, (y, x) in enumerate(zip(down, right, strict=True)):
        np.testing.assert_array_equal(shifted[i], padded[i, 4 - y : 4 - y + SIDE, 4 - x : 4 - x + SIDE])


def test_shifts_are_uniform() -> None:
    draws = RandomShift(4).make_draws(SEED, MANY)
    for shifts in draws.values():
        assert stats.chisquare(np.bincount(shifts.numpy() + 4, minlength=9)).pvalue > 1e-3
    assert abs(np.corrcoef(*draws.values())[0, 1]) < 0.03


# ------------------------------------------------------------------------ erasing


def test_boxes_that_are_erased() -> None:
    size = 2000  # rounding to pixels is then no matter
    boxes = RandomErasing(0.3, size).make_draws(SEED, MANY)['erase_box'].numpy()
    heights, widths = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    assert boxes.min() >= 0
    assert boxes.max() <= size
    erased = heights > 0
    assert stats.binomtest(int(erased.sum()), MANY, 0.3).pvalue > 1e-3
    heights, widths, boxes = heights[erased], widths[erased], boxes[erased]
    areas, ratios = heights * widths / size**2, heights / widths
    assert stats.kstest(areas, stats.uniform(0.02, 1 / 3 - 0.02).cdf).pvalue > 1e-3
    assert 0.299 < ratios.min() < 0.31
    assert stats.ks_2samp(np.log(ratios), -np.log(ratios)).pvalue > 1e-3
    for edge, side in ((boxes[:, 0], heights), (boxes[:, 2], widths)):
        assert stats.kstest(edge / (size - side + 1), stats.uniform.cdf).pvalue > 1e-3


def test_erased_boxes_are_zero_and_the_rest_as_it_was() -> None:
    stage = RandomErasing(0.6, 32)
    images = tf.constant(np.random.RandomState(0).uniform(0.5, 1, (40, 32, 32, 3)), tf.float32)
    draws = stage.make_draws(SEED, 40)
    erased = stage(images, draws).numpy()
    for image, before, (top, bottom, left, right) in zip(erased, images.numpy(), draws['erase_box'], strict=True):
        assert not image[top:bottom, left:right].any()
        before[top:bottom, left:right] = 0
        np.testing.assert_array_equal(image, before)


# ------------------------------------------------------------------------ mixing


@pytest.mark.parametrize('alpha', [0.05, 0.2, 0.5, 1.0, 8.0, 100.0])
def test_shares_are_of_the_beta_distribution(alpha: float) -> None:
    draws = [batches.uniform(tf.constant(SEED), quantity, MANY) for quantity in (0, 1)]
    shares = symmetric_beta(tf.fill([MANY], alpha), *draws).numpy().astype(np.float64)
    assert np.isfinite(shares).all()
    # Float32 has nothing between 1 and 1 - 6e-8, where much of a small alpha's lies.
    inner = np.clip(shares, 1e-6, 1 - 1e-6)
    expected = stats.beta(alpha, alpha)
    at_ends = expected.cdf(1e-6)
    assert stats.binomtest(int((inner <= 1e-6).sum()), MANY, at_ends).pvalue > 1e-3
    inside = inner[(inner > 1e-6) & (inner < 1 - 1e-6)]
    assert stats.kstest(inside, lambda x: (expected.cdf(x) - at_ends) / (1 - 2 * at_ends)).pvalue > 1e-3


def test_extreme_draws_give_shares() -> None:
    ends = tf.constant([0.0, 1 - 2**-24, 0.0, 0.5, 1 - 2**-24])
    angles = tf.constant([0.0, 0.25, 0.25, 0.75, 0.5])
    for alpha in (1e-30, 0.01, 100.0):
        shares = symmetric_beta(tf.fill([5], alpha), ends, angles).numpy()
        assert ((shares >= 0) & (shares <= 1)).all()


def mixing(**options: Any) -> Mixing:
    made = augmented(**{'mixup_alpha': 0.8, **options}).mixing
    assert made is not None
    return made


KINDS: dict[str, dict[str, Any]] = {
    'mixup': {},
    'cutmix': {'mixup_alpha': 0.0, 'cutmix_alpha': 1.0},
    'both': {'cutmix_alpha': 1.0, 'mixup_prob': 0.7},
}


@pytest.mark.parametrize('options', KINDS.values(), ids=KINDS)
def test_pairs_are_mixed_as_numpy_mixes_them(options: dict[str, Any]) -> None:
    stage, count = mixing(**options), 40
    images = tf.cast(some_batch(count), tf.float32)
    draws = stage.make_draws(SEED, count)
    mixed, labels = stage(images, draws).numpy(), np.arange(count, dtype=np.int32)
    targets = stage.targets(tf.constant(labels), draws)
    boxes, shares = draws['mix_box'].numpy(), draws['mix_share'].numpy()
    for i in range(count):
        top, bottom, left, right = boxes[i]
        np.testing.assert_array_equal(boxes[i], boxes[i ^ 1])
        expected = shares[i] * images[i].numpy() + (1 - shares[i]) * images[i ^ 1].numpy()
        expected[top:bottom, left:right] = images[i ^ 1, top:bottom, left:right]
        np.testing.assert_allclose(mixed[i], expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(targets.labels, labels)
    np.testing.assert_array_equal(targets.others, labels ^ 1)


@pytest.mark.parametrize('options', KINDS.values(), ids=KINDS)
def test_labels_have_the_share_of_the_image(options: dict[str, Any]) -> None:
    """Images of zeros beside images of ones: the mean of each is what it has of the other."""
    stage, count = mixing(**options), 200
    numbers = np.arange(count) % 2
    images = tf.constant(np.broadcast_to(numbers[:, None, None, None], (count, 32, 32, 3)), tf.float32)
    draws = stage.make_draws(SEED, count)
    of_ones = stage(images, draws).numpy().mean(axis=(1, 2, 3), dtype=np.float64)
    shares = draws['mix_label_share'].numpy()
    np.testing.assert_allclose(np.where(numbers == 1, of_ones, 1 - of_ones), shares, atol=1e-6)
    assert len(np.unique(shares)) > 20


def test_which_pairs_are_mixed_and_how() -> None:
    options = {'cutmix_alpha': 1.0, 'mixup_prob': 0.4, 'mixup_switch_prob': 0.25}
    draws = {name: values.numpy()[::2] for name, values in mixing(**options).make_draws(SEED, MANY).items()}
    pairs = MANY // 2
    top, bottom, *_ = draws['mix_box'].T
    blended, cut = draws['mix_share'] < 1, bottom > top
    assert not (blended & cut).any()
    # A box may be empty, or a share 1, by chance; not by much.
    assert blended.sum() / pairs == pytest.approx(0.4 * 0.75, abs=0.02)
    assert cut.sum() / pairs == pytest.approx(0.4 * 0.25, abs=0.02)
    assert stats.kstest(draws['mix_share'][blended], stats.beta(0.8, 0.8).cdf).pvalue > 1e-3


def test_boxes_that_are_cut_are_timms() -> None:
    """Around any pixel, both sides the root of what is not left, and cut off where they leave the image."""
    size = 1000
    draws = Mixing(0.0, 1.0, 1.0, 0.5, size).make_draws(SEED, MANY)
    top, bottom, left, right = draws['mix_box'].numpy()[::2].T
    assert min(top.min(), left.min()) == 0
    assert max(bottom.max(), right.max()) == size
    whole = (top > 0) & (bottom < size) & (left > 0) & (right < size)
    assert ((bottom - top) == (right - left))[whole].all()
    random = np.random.RandomState(0)
    half = (np.sqrt(1 - random.beta(1, 1, MANY)) * size).astype(int) // 2
    y, x = random.randint(size, size=(2, MANY))
    expected = [np.clip(centre + sign * half, 0, size) for centre in (y, x) for sign in (-1, 1)]
    areas = (expected[1] - expected[0]) * (expected[3] - expected[2]) / size**2
    assert stats.ks_2samp((bottom - top) * (right - left) / size**2, areas).pvalue > 1e-3


@pytest.mark.parametrize(('position', 'is_mixed'), [(0, True), (149, True), (150, False), (10**12, False)])
def test_mixing_ends_after_its_epochs(position: int, is_mixed: bool) -> None:
    draws = mixing(cutmix_alpha=1.0, mixup_off_epoch=1.5).make_draws(tf.constant([0, position], tf.int64), 64)
    top, bottom, *_ = draws['mix_box'].numpy().T
    for changed in (draws['mix_share'].numpy() < 1, bottom > top, draws['mix_label_share'].numpy() < 1):
        assert changed.any() == is_mixed


# ------------------------------------------------------------------------ the loss


def timms_targets(labels: np.ndarray, others: np.ndarray, shares: np.ndarray, classes: int, smoothing: float):
    """Returns soft labels as timm's mixup_target makes them."""
    off = smoothing / classes
    on = 1 - smoothing + off
    first, second = (np.where(np.arange(classes) == label[:, np.newaxis], on, off) for label in (labels, others))
    return first * shares[:, np.newaxis] + second * (1 - shares[:, np.newaxis])


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_loss_is_that_of_timms_soft_labels(smoothing: float) -> None:
    random = np.random.RandomState(0)
    logits = random.normal(size=(12, 7)).astype(np.float32)
    labels, others, shares = random.randint(0, 7, 12), random.randint(0, 7, 12), random.uniform(0, 1, 12)
    soft = timms_targets(labels, others, shares, 7, smoothing)
    log_probabilities = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
    targets = Targets(tf.constant(labels), tf.constant(others), tf.constant(shares, tf.float32))
    with tf.GradientTape() as tape:
        watched = tf.constant(logits)
        tape.watch(watched)
        losses = mixed_cross_entropy(watched, targets, smoothing)
    assert losses.dtype == tf.float32
    np.testing.assert_allclose(losses, -(soft * log_probabilities).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(losses, watched), np.exp(log_probabilities) - soft, atol=1e-6)


def test_a_label_that_is_no_class_adds_nothing() -> None:
    logits = tf.constant(np.random.RandomState(0).normal(size=(2, 5)), tf.float32)
    targets = Targets(tf.constant([-1, 2]), tf.constant([2, -1]), tf.constant([0.25, 0.25]))
    alone = mixed_cross_entropy(logits, Targets(tf.constant([2, 2])))
    np.testing.assert_allclose(mixed_cross_entropy(logits, targets), alone * [0.75, 0.25], rtol=1e-6)


# ------------------------------------------------------------------------ all of them, in every preprocessing


def test_without_the_options_all_is_the_preprocessings() -> None:
    made = augmented()
    assert made == Augmentation(made.preprocessing)
    alone = augmented(rand_augment_magnitude=3.0, mixup_prob=0.5, mixup_switch_prob=0.1, mixup_off_epoch=2.0)
    assert alone == Augmentation(alone.preprocessing)
    assert set(made.make_draws(SEED, 4)) == {'flip', 'brightness', 'saturation'}
    labels = tf.constant([1, 2])
    assert made.targets(labels, {}) == Targets(labels, None, None)


@pytest.mark.parametrize('option', EVERYTHING)
def test_each_option_varies_images(option: str) -> None:
    plain, varied = augmented(), augmented(**{option: EVERYTHING[option]})
    batch = some_batch(8)
    draws = varied.make_draws(SEED, 8)
    assert not np.array_equal(varied.device_train(batch, draws), plain.device_train(batch, draws))


def test_at_probability_zero_images_are_as_they_were() -> None:
    made = augmented(**EVERYTHING)
    unchanged = {'rand_augment': tf.zeros([8, 2], tf.int32)}
    for stage in (RandomShift(0), RandomErasing(0.0, 32), mixing(mixup_prob=0.0)):
        unchanged |= stage.make_draws(SEED, 8)
    draws = {**made.make_draws(SEED, 8), **unchanged}
    batch = some_batch(8)
    np.testing.assert_array_equal(made.device_train(batch, draws), made.preprocessing.device_train(batch, draws))


@pytest.mark.quick('inception-3-3', 'whole-3-3')
@pytest.mark.parametrize(('name', 'channels', 'source_channels'), FAMILIES)
def test_slices_of_the_draws_give_the_batch(name: str, channels: int, source_channels: int) -> None:
    made = augmented(name, channels, source_channels, **EVERYTHING)
    batch, labels = some_batch(12, source_channels), tf.range(12)
    draws = made.make_draws(SEED, 12)
    whole, targets = made.device_train(batch, draws), made.targets(labels, draws)
    assert (whole.shape, whole.dtype) == ([12, 32, 32, channels], tf.float32)
    parts = [(rows, {key: draw[rows] for key, draw in draws.items()}) for rows in (slice(0, 4), slice(4, 12))]
    images = tf.concat([made.device_train(batch[rows], drawn) for rows, drawn in parts], axis=0)
    np.testing.assert_allclose(images, whole, rtol=0, atol=1e-5)
    for expected, *found in zip(targets, *(made.targets(labels[rows], drawn) for rows, drawn in parts), strict=True):
        np.testing.assert_array_equal(tf.concat(found, axis=0), expected)


@pytest.mark.full
def test_compiled_once_it_is_the_same_for_all_draws() -> None:
    """XLA treats some arguments of an operation as constants, and would compile anew for each value."""
    made, batch, seconds = augmented(**EVERYTHING), some_batch(12), []
    compiled = tf.function(made.device_train, jit_compile=True, autograph=False)
    for step in range(3):
        draws = made.make_draws(tf.constant([0, step], tf.int64), 12)
        start = time.process_time()
        images = compiled(batch, draws)
        seconds.append(time.process_time() - start)
        np.testing.assert_allclose(images, made.device_train(batch, draws), rtol=0, atol=1e-5)
    assert max(seconds[1:]) < seconds[0] / 5


def test_images_and_steps_are_varied_independently() -> None:
    made = augmented(**{**EVERYTHING, 'random_erasing_prob': 1.0}, random_flip=False, color_distortion='off')
    batch = tf.tile(some_batch(1), [32, 1, 1, 1])  # one image
    images, later = (
        made.device_train(batch, made.make_draws(tf.constant([1, step], tf.int64), 32)).numpy() for step in (2, 3)
    )
    assert len({image.tobytes() for image in images}) == 32
    assert not np.array_equal(images, later)


# ------------------------------------------------------------------------ runs

RUN = {
    **EVERYTHING,
    'preprocessing_name': 'inception',
    'train_image_size': 16,
    'max_number_of_steps': 4,
    'label_smoothing': 0.1,
    'mixup_off_epoch': 64 / 1437,  # after the second step
}


@pytest.fixture(scope='module')
def whole(tmp_path_factory, train_digits) -> str:
    """The checkpoint of a run on one device."""
    return train_digits(tmp_path_factory.mktemp('whole'), **RUN).checkpoint_path


DIVIDED: dict[str, dict[str, Any]] = {
    'replicas': {'num_clones': 2},
    'parts, compiled by XLA': {'batch_size': 16, 'gradient_accumulation_steps': 2, 'xla': 'on'},
}


@pytest.mark.full
@pytest.mark.parametrize('devices', DIVIDED.values(), ids=DIVIDED)
def test_divided_batches_are_the_whole(whole, train_digits, tmp_path, devices):
    divided = saved_values(train_digits(tmp_path, **RUN, **devices).checkpoint_path)
    for name, value in saved_values(whole).items():
        np.testing.assert_allclose(divided[name], value, rtol=0, atol=1e-6 * np.abs(value).max(), err_msg=name)


@pytest.mark.full
def test_a_run_goes_on_where_mixing_ends(whole, train_digits, tmp_path):
    train_digits(tmp_path, **{**RUN, 'max_number_of_steps': 1})
    assert_same_values(train_digits(tmp_path, **RUN).checkpoint_path, whole)


@pytest.mark.full
def test_bfloat16_trains_with_all(train_digits, tmp_path, whole):
    rounded = saved_values(train_digits(tmp_path, **RUN, mixed_precision='bfloat16').checkpoint_path)
    slots = {name: value for name, value in saved_values(whole).items() if name.endswith('weights/Momentum')}
    assert len(slots) == 4
    for name, value in slots.items():
        assert np.linalg.norm(rounded[name] - value) < 0.3 * np.linalg.norm(value), name


def test_summarised_images_are_what_the_net_sees(digits_dir, tmp_path):
    config = small_config(digits_dir, tmp_path, **{**RUN, 'mixup_prob': 0.0, 'color_distortion': 'off'})
    run = open_run(config, SINGLE_PROCESS)
    images = run.make_input(num_steps=1).next_images(stream=0).numpy()
    draws = make_augmentation(run.preprocessing, 1437).make_draws(tf.constant([0, 0], tf.int64), 32)
    erased = draws['erase_box'].numpy()
    assert (erased[:, 1] > 0).sum() > 5
    for image, (top, bottom, left, right) in zip(images, erased, strict=True):
        assert not image[top:bottom, left:right].any()
        assert image.any()


# ------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'random_shift': -1}, '--random_shift=-1: must be at least 0'),
        ({'rand_augment_ops': -1}, '--rand_augment_ops=-1: must be at least 0'),
        ({'rand_augment_ops': 17}, '--rand_augment_ops=17: must be at most 16'),
        ({'rand_augment_magnitude': 10.5}, '--rand_augment_magnitude=10.5: must be at most 10.0'),
        ({'random_erasing_prob': 1.1}, '--random_erasing_prob=1.1: must be at most 1.0'),
        ({'mixup_alpha': -0.1}, '--mixup_alpha=-0.1: must be at least 0.0'),
        ({'cutmix_alpha': float('inf')}, '--cutmix_alpha=inf: must be a finite number'),
        ({'mixup_prob': 2.0}, '--mixup_prob=2.0: must be at most 1.0'),
        ({'mixup_switch_prob': -1.0}, '--mixup_switch_prob=-1.0: must be at least 0.0'),
        ({'mixup_off_epoch': -1.0}, '--mixup_off_epoch=-1.0: must be at least 0.0'),
    ],
)
def test_values_outside_what_is_allowed(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        make_config(TrainConfig, **values)


def test_every_option_here_is_refused_outside_its_range() -> None:
    (marked,) = test_values_outside_what_is_allowed.pytestmark
    assert {name for values, _ in marked.args[1] for name in values} == set(EVERYTHING) | OFF


def test_a_shift_beyond_the_image() -> None:
    with pytest.raises(InputError, match=r'^--random_shift=32: must be less than the image size, 32$'):
        augmented(random_shift=32)


def test_a_plan_refuses_them_too() -> None:
    cluster = {'plan': True, 'plan_workers': 8, 'plan_images_per_second': 100.0}
    config = make_config(TrainConfig, batch_size=24, mixup_alpha=0.2, **cluster)
    with pytest.raises(InputError, match='mix pairs, and 3 examples on a replica are odd'):
        plan.refuse_impossible(config)
