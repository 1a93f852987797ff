"""What people have really brought, and what becomes of it: a table, a row a thing that is done with an input.

Records and checkpoints have theirs in test_cases_records.py and test_cases_checkpoints.py.
"""

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from configs.conversion import ConvertConfig
from configs.options import make_config
from datasets.conversion import verify
from datasets.conversion.encode import encode
from datasets.conversion.recipe import Encoding
from datasets.dataset_factory import Dataset, get_dataset
from datasets.files import LeftOut
from datasets.input_pipeline import evaluation_batches, naming_failures, training_batches
from engine.prediction.image_files import find_images, prepare
from preprocessing import images
from preprocessing.preprocessing_factory import PREPROCESSINGS, get_preprocessing
from support.errors import InputError
from tests.sources import convert_to, image_file, write_files

pytest_plugins = ['tests.cases']

WHOLE = get_preprocessing('whole', 40)
FAMILIES = sorted({family: name for name, family in reversed(PREPROCESSINGS.items())}.values())
Check = Callable[[Path], None]


def picture(folder: Path, upright: bool = False) -> np.ndarray:
    """The pixels that Pillow sees in the first image of a case."""
    with Image.open(find_images([str(folder)])[0]) as image:
        return np.asarray((ImageOps.exif_transpose(image) if upright else image).convert('RGB'))


def as_whole(pixels: np.ndarray) -> np.ndarray:
    return WHOLE.host_eval(tf.constant(pixels)).numpy()


def dataset_of(folder: Path, split: str = 'train') -> Dataset:
    return get_dataset('image_folder', str(folder), split)


def train_and_evaluate(folder: Path, preprocessing: Any = WHOLE) -> list[np.ndarray]:
    """The first image that training and evaluation take of a folder."""
    dataset, found = dataset_of(folder), []
    with naming_failures(dataset, preprocessing, range(2), seed=0):
        found.append(next(iter(training_batches(dataset, preprocessing, 2, seed=0, first_position=0)))['image'][0])
    with naming_failures(dataset, preprocessing, range(2)):
        found.append(next(iter(evaluation_batches(dataset, preprocessing, 2)))['image'][0])
    return [image.numpy() for image in found]


def converted(folder: Path, target: Path) -> Dataset:
    convert_to(folder, target, num_processes=1)
    assert verify.verify(make_config(ConvertConfig, dataset_dir=str(target), num_processes=1)) == 0
    return get_dataset('image_folder', str(target), 'train')


# ------------------------------------------------------------------------ what training, evaluation and predict see


def _is_pillows(folder: Path) -> None:
    """All see the pixels of Pillow's first frame, whatever is transparent in the colour behind it."""
    expected = picture(folder)
    stored = dataset_of(folder).examples.check(0)['image']
    np.testing.assert_array_equal(images.decode(stored).numpy(), expected)
    trained, evaluated = train_and_evaluate(folder)
    np.testing.assert_array_equal(evaluated, as_whole(expected))
    np.testing.assert_array_equal(trained, np.round(as_whole(expected)))
    (predicted, *_) = prepare(WHOLE, find_images([str(folder)]))
    np.testing.assert_array_equal(predicted, as_whole(expected))


def _is_turned_by_predict_alone(folder: Path) -> None:
    stored = Path(find_images([str(folder)])[0]).read_bytes()
    as_stored = images.decode(tf.constant(stored)).numpy()
    assert picture(folder, upright=True).shape == (64, 48, 3) == np.rot90(as_stored, -1).shape
    upright, sideways = (prepare(WHOLE, [stored], apply_exif_orientation=turned)[0] for turned in (True, False))
    np.testing.assert_array_equal(upright, as_whole(np.rot90(as_stored, -1)))
    trained, evaluated = train_and_evaluate(folder)
    np.testing.assert_array_equal(sideways, as_whole(as_stored))
    np.testing.assert_array_equal(evaluated, as_whole(as_stored))
    np.testing.assert_array_equal(trained, np.round(as_whole(as_stored)))


def _is_read(folder: Path) -> None:
    assert len(dataset_of(folder).examples) == len(find_images([str(folder)])) == 4
    (predicted, *_) = prepare(WHOLE, find_images([str(folder)]))
    assert not isinstance(predicted, str)
    assert np.abs(predicted - as_whole(picture(folder))).mean() < 1


def _has_8_images_of_2_classes(folder: Path) -> None:
    dataset = dataset_of(folder)
    assert (dataset.label_names, len(dataset.examples)) == (('rose', 'tulip'), 8)
    left_out = LeftOut()
    assert len(find_images([str(folder)], left_out)) == 8
    assert str(left_out) == '3 folders left out: 3 @eaDir'
    assert len(find_images([f'{folder}/**/*.jpg'])) == 8
    assert len(find_images([f'{folder}/train/@eaDir'])) == 1  # which was asked for


def _has_the_classes_of_both_forms(folder: Path) -> None:
    train, validation = dataset_of(folder), dataset_of(folder, 'validation')
    assert train.label_names == validation.label_names == (unicodedata.normalize('NFC', 'Rösé'), 'tulip')
    assert sorted(train.examples.check(i)['label'].numpy() for i in range(8)) == [0] * 4 + [1] * 4


SEEN: dict[str, Check] = {
    'images/gif_offset': _is_pillows,
    'images/transparent_gif': _is_pillows,
    'images/exif_rotated': _is_turned_by_predict_alone,
    'images/jfif': _is_read,
    'folders/system_folders': _has_8_images_of_2_classes,
    'folders/nfd_nfc': _has_the_classes_of_both_forms,
}


@pytest.mark.parametrize('case', SEEN)
def test_what_is_seen(made_inputs: Path, case: str) -> None:
    SEEN[case](made_inputs / case)


RGBA = Image.fromarray(np.random.RandomState(0).randint(0, 256, (6, 9, 4)).astype(np.uint8))
FEW = RGBA.convert('RGB').quantize(16)
TRANSPARENT: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
    'PNG': (RGBA, 'PNG', {}),
    'gray PNG': (RGBA.convert('LA'), 'PNG', {}),
    'PNG with a palette': (FEW, 'PNG', {'transparency': bytes(range(16))}),
    'PNG with a transparent colour': (RGBA.convert('RGB'), 'PNG', {'transparency': (1, 2, 3)}),
    'WebP': (RGBA, 'WEBP', {'lossless': True, 'exact': True}),
    'BMP': (RGBA, 'BMP', {}),
}


@pytest.mark.parametrize('case', TRANSPARENT)
def test_the_colour_behind_transparency_stays(case: str) -> None:
    """In training, evaluation, conversion and predict, of all formats; never black, never white."""
    image, image_format, options = TRANSPARENT[case]
    stored = image_file(image, image_format, **options)
    expected = np.asarray(image.convert('RGB'))
    for data in (stored, encode(stored, Encoding()).data):
        np.testing.assert_array_equal(images.decode(tf.constant(data)).numpy(), expected)


@pytest.mark.quick('torchvision')
@pytest.mark.parametrize('family', FAMILIES)
def test_narrow_images_are_refused_whatever_the_preprocessing(made_inputs: Path, family: str) -> None:
    dataset, preprocessing = dataset_of(made_inputs / 'images/narrow'), get_preprocessing(family, 32)
    batches = (
        (0, lambda: training_batches(dataset, preprocessing, 1, seed=0, first_position=0)),
        (None, lambda: evaluation_batches(dataset, preprocessing, 1)),
    )
    for seed, make in batches:
        with pytest.raises(InputError) as raised, naming_failures(dataset, preprocessing, range(1), seed=seed):
            next(iter(make()))
        path, problem = str(raised.value).split(': ', 1)
        assert path in [dataset.examples.describe(number) for number in range(4)]
        assert problem == (
            'its image cannot be prepared: too narrow: one side may be at most 1365 times the other; remove it, or '
            'convert the folder with --max_bad_images'
        )
    predicted = prepare(preprocessing, find_images([str(made_inputs / 'images/narrow')]))
    assert predicted == ['1 x 9000 pixels: too narrow: one side may be at most 1365 times the other'] * 4


# ------------------------------------------------------------------------ what conversion writes

# Of each case whether the first record has Pillow's pixels, how many there are, and its classes; or what is wrong.
CONVERTED: dict[str, tuple[int, tuple[str, ...]] | str] = {
    'images/gif_offset': (4, ('a', 'b')),
    'images/transparent_gif': (4, ('a', 'b')),
    'images/exif_rotated': (4, ('a', 'b')),
    'images/jfif': (4, ('a', 'b')),
    'images/narrow': r'/[ab]/[01]a.png: 1 x 9000 pixels: too narrow: one side may be at most 1365 times the other;',
    'folders/system_folders': (8, ('rose', 'tulip')),
    'folders/nfd_nfc': (8, (unicodedata.normalize('NFC', 'Rösé'), 'tulip')),
}


@pytest.mark.quick('images/gif_offset', 'folders/nfd_nfc')
@pytest.mark.parametrize('case', CONVERTED)
def test_what_is_converted(made_inputs: Path, tmp_path: Path, case: str) -> None:
    expected = CONVERTED[case]
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            converted(made_inputs / case, tmp_path)
        return
    dataset = converted(made_inputs / case, tmp_path)
    assert (len(dataset.examples), dataset.label_names) == expected
    if 'gif' in case:
        decoded = images.decode(dataset.examples.check(0)['image']).numpy()
        np.testing.assert_array_equal(decoded, picture(made_inputs / case))


def test_verify_compares_names_in_one_form(made_inputs: Path, tmp_path: Path) -> None:
    converted(made_inputs / 'folders/nfd_nfc', tmp_path)
    labels = tmp_path / 'labels.txt'
    labels.write_text(unicodedata.normalize('NFD', labels.read_text(encoding='utf-8')), encoding='utf-8')
    assert verify.verify(make_config(ConvertConfig, dataset_dir=str(tmp_path), num_processes=1)) == 0
    assert get_dataset('image_folder', str(tmp_path), 'validation').label_names[0] == 'Rösé'


# ------------------------------------------------------------------------ what is said, once

SAID: dict[str, tuple[str, ...]] = {
    'images/gif_offset': (),
    'images/exif_rotated': (
        '4 of 4 images looked at have an EXIF orientation, which training and evaluation ignore, as slim does; predict '
        'applies it, unless --apply_exif_orientation=false. To train on upright images, turn the files',
    ),
    'images/jfif': ('12 files left out: 9 .tif, 3 .db',),
    'folders/system_folders': ('3 folders left out: 3 @eaDir',),
}


@pytest.mark.parametrize('case', SAID)
def test_what_is_said(made_inputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str) -> None:
    folder = tmp_path / 'copy'
    folder.symlink_to(made_inputs / case)  # said of it nowhere before
    if case == 'images/jfif':
        folder.unlink()
        write_files(folder, {f'train/{name}/0.jfif': b'\xff\xd8\xff' for name in 'ab'})
        write_files(folder, dict.fromkeys([f'train/a/{i}.tif' for i in range(9)], b''))
        write_files(folder, dict.fromkeys(['train/x.db', 'train/b/x.db', 'train/b/deep/Thumbs.DB', 'train/.ds'], b''))
    with caplog.at_level('INFO', logger='absl'):
        for _ in range(2):
            get_dataset('image_folder', str(folder), 'train[:50%]')
    assert caplog.messages == [f'{folder}/train: {line}' for line in SAID[case]]
