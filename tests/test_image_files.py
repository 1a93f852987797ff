"""From names to prepared images: what is found, what is read, and what is said of the rest."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from datasets.conversion.encode import BadImage, image_format, read_header
from datasets.files import LeftOut
from engine.prediction import image_files
from engine.prediction.image_files import find_images, prepare, prepare_batches, split_input
from preprocessing.preprocessing_factory import Preprocessing, get_preprocessing
from support.input_files import MAX_PIXELS
from tests.sources import image_file, png_header, write_files

COLOURS = get_preprocessing('inception', 24)
GRAY = get_preprocessing('lenet', 24, channels=1, source_channels=1)
# Smooth, so that what decoders differ in is small.
RAMP = np.stack([*np.meshgrid(np.arange(0, 250, 5), np.arange(0, 200, 5)), np.full((40, 50), 90)], -1).astype(np.uint8)
PICTURE = Image.fromarray(RAMP)
NOT_KNOWN = 'not an image in a known format (JPEG, PNG, GIF, BMP, WebP)'


def prepared(preprocessing: Preprocessing, images: Sequence[image_files.Image]) -> list[np.ndarray]:
    """Returns the prepared images, none of which may be bad."""
    found = prepare(preprocessing, images)
    assert not [image for image in found if isinstance(image, str)]
    return [image for image in found if not isinstance(image, str)]


JPEG, PNG = image_file(PICTURE, 'JPEG'), image_file(PICTURE, 'PNG')

# ------------------------------------------------------------------------ names

FILES = ('b.png', 'a/2.JPEG', 'a/1.jpg', 'a/deep/er/3.webp', 'a/notes.txt', '.hidden/4.png', 'a/.5.png', 'x[1].gif')


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_files(tmp_path, dict.fromkeys(FILES, b'?'))
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'a' / 'lost.png').symlink_to('nowhere')
    os.mkfifo(tmp_path / 'a' / 'pipe.png')
    monkeypatch.chdir(tmp_path)
    return tmp_path


IN_A = ['a/1.jpg', 'a/2.JPEG', 'a/deep/er/3.webp', 'a/lost.png']


@pytest.mark.parametrize(
    ('names', 'found'),
    [
        (['a'], IN_A),
        (['a/'], IN_A),
        (['b.png', 'a/1.jpg', 'b.png'], ['b.png', 'a/1.jpg', 'b.png']),
        (['*.png'], ['b.png']),
        (['a/*.jp*g', 'a/*.JP*G'], ['a/1.jpg', 'a/2.JPEG']),
        (['a/d*'], ['a/deep/er/3.webp']),
        (['a/deep/**'], ['a/deep/er/3.webp']),
        (['**/3.*p'], ['a/deep/er/3.webp']),
        (['x[1].gif'], ['x[1].gif']),
        (['no*thing', 'empty', 'none.png', 'a/notes.txt'], ['no*thing', 'empty', 'none.png', 'a/notes.txt']),
        ([], []),
    ],
)
def test_names_stand_for_images(folder, names, found):
    assert find_images(names) == found


def test_links_are_followed_but_not_in_circles(folder):
    (folder / 'empty' / 'circle').symlink_to(folder)
    (folder / 'empty' / 'a').symlink_to(folder / 'a' / 'deep')
    assert find_images(['empty']) == [
        'empty/a/er/3.webp',
        *(f'empty/circle/{path}' for path in [*IN_A, 'b.png']),
        'empty/circle/x[1].gif',
    ]


def test_a_link_to_itself_is_named_and_the_others_are_found(folder):
    for name in ('loop', 'a/loop.png'):
        (folder / name).symlink_to(os.path.basename(name))
    assert find_images(['.']) == ['./a/1.jpg', './a/2.JPEG', './a/deep/er/3.webp', './a/loop.png', './a/lost.png',
                                  './b.png', './loop', './x[1].gif']  # fmt: skip
    assert find_images(['loop']) == ['loop']
    assert prepare(COLOURS, ['loop', PNG])[0] == 'a symbolic link that leads to itself; remove it'


def test_what_folders_hold_beside_images_is_counted(tmp_path):
    write_files(
        tmp_path,
        dict.fromkeys(
            ['1.jpe', '2.JFIF', '3.tif', '4.TIF', 'b/5.heic', 'b/README', '.hidden', 'b/@eaDir/1.jpg/THUMB.jpg',
             '__MACOSX/b/5.jpg', 'b/.ipynb_checkpoints/5.png', 'Lost+Found/6.png', 'b/$RECYCLE.BIN/7.png',
             'System Volume Information/8.png', 'b/\x1b[31m.\x1b[0m'], b''),
    )  # fmt: skip
    left_out = LeftOut()
    assert find_images([str(tmp_path)], left_out) == [f'{tmp_path}/1.jpe', f'{tmp_path}/2.JFIF']
    assert str(left_out) == (
        "5 files left out: 2 .tif, 1 '.\\x1b[0m', 1 .heic, 1 without an ending; 6 folders left out: 1 $RECYCLE.BIN, 1 "
        '.ipynb_checkpoints, 1 @eaDir, 1 Lost+Found, 1 System Volume Information, 1 __MACOSX'
    )
    assert str(LeftOut()) == ''


def test_names_that_are_no_text(tmp_path):
    names = [b'\xff\xfe.png', b'new\nline.png', b'tab\t.png', b' space .png']
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_bytes(PNG)
    found = find_images([str(tmp_path)])
    assert {os.fsencode(os.path.basename(path)) for path in found} == set(names)
    assert all(isinstance(image, np.ndarray) for image in prepare(COLOURS, found))


@pytest.mark.parametrize(
    ('data', 'is_as'),
    [
        (JPEG, JPEG),
        (image_file(PICTURE, 'BMP'), image_file(PICTURE, 'BMP')),
        (b'BMW.jpg\na b.png\r\n\r\n\n\xff.gif', ['BMW.jpg', 'a b.png', '\udcff.gif']),
        (b'new\nline.png\0b.png\0', ['new\nline.png', 'b.png']),
        (b'II*\0a TIFF\n', b'II*\0a TIFF\n'),
        (b'\n', b'\n'),
        (b'', b''),
    ],
)
def test_standard_input_is_an_image_or_a_list(data, is_as):
    assert split_input(data) == is_as


# ------------------------------------------------------------------------ what can be prepared


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
@pytest.mark.parametrize('preprocessing', [COLOURS, GRAY], ids=['colours', 'gray'])
def test_images_are_those_of_an_evaluation(preprocessing, kind):
    (found,) = prepare(preprocessing, [image_file(PICTURE, kind)])
    np.testing.assert_array_equal(found, preprocessing.host_eval(image_file(PICTURE, kind)).numpy())


FEW_COLOURS, GRAYS = PICTURE.quantize(64), PICTURE.convert('L')
TWO_FRAMES = {'save_all': True, 'append_images': [PICTURE.rotate(180)]}
# The file, and the picture that is in it.
OTHERS = {
    'BMP': (image_file(PICTURE, 'BMP'), PICTURE),
    'BMP with a palette': (image_file(FEW_COLOURS, 'BMP'), FEW_COLOURS.convert('RGB')),
    'GIF': (image_file(FEW_COLOURS, 'GIF'), FEW_COLOURS.convert('RGB')),
    'WebP': (image_file(PICTURE, 'WEBP', lossless=True), PICTURE),
    'WebP of two frames': (image_file(PICTURE, 'WEBP', lossless=True, **TWO_FRAMES), PICTURE),
    'JPEG in CMYK': (image_file(PICTURE.convert('CMYK'), 'JPEG', quality=95), PICTURE),
    'PNG with transparency': (image_file(PICTURE.convert('RGBA'), 'PNG'), PICTURE),
    'PNG of 16 bits': (image_file(Image.fromarray(np.asarray(GRAYS).astype(np.uint16) * 257), 'PNG'), GRAYS),
}


@pytest.mark.parametrize('name', OTHERS)
@pytest.mark.parametrize('preprocessing', [COLOURS, GRAY], ids=['colours', 'gray'])
def test_all_kinds_of_files_can_be_prepared(preprocessing, name):
    data, picture = OTHERS[name]
    expected, found = prepared(preprocessing, [image_file(picture, 'PNG'), data])
    levels = 6 if 'JPEG' in name else 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=levels / 255 * preprocessing.host_range)


def test_photographs_are_those_of_an_evaluation(shared_path):
    paths = find_images([str(shared_path('data/imagenet_raw_mini') / 'validation')])
    assert paths
    for path, found in zip(paths, prepare(COLOURS, paths), strict=True):
        np.testing.assert_array_equal(found, COLOURS.host_eval(Path(path).read_bytes()).numpy())


def test_arrays_are_prepared_as_files_of_the_same_pixels():
    gray = np.asarray(PICTURE.convert('L'))
    gray_png = image_file(Image.fromarray(gray), 'PNG')
    colours = prepare(COLOURS, [RAMP, PNG, gray, gray[..., None], gray_png])
    np.testing.assert_array_equal(colours[0], colours[1])
    np.testing.assert_array_equal(colours[2], colours[4])
    np.testing.assert_array_equal(colours[3], colours[4])
    grays = prepared(GRAY, [RAMP, PNG, gray, gray_png])
    np.testing.assert_allclose(grays[0], grays[1], atol=1)
    np.testing.assert_array_equal(grays[2], grays[3])


# ------------------------------------------------------------------------ what cannot

BAD: dict[str, tuple[image_files.Image, str]] = {
    'missing': ('none.png', 'no such file'),
    'glob': ('none*.png', 'no file matches'),
    'pipe': ('pipe', 'is a pipe; must be a regular file'),  # for which nobody would write
    'zero in the name': ('a\0b', 'no such file'),
    'folder': ('folder', 'a folder without images (.jpg, .jpeg, .jpe, .jfif, .png, .bmp, .gif, .webp)'),
    'below a file': ('text.png/a.png', 'cannot be read: Not a directory'),
    'text': ('text.png', NOT_KNOWN),
    'lost': ('lost.png', 'no such file'),
    'empty': (b'', 'the file is empty'),
    'JPEG cut short': (JPEG[:-100], 'a JPEG that is damaged or cut short'),
    'JPEG of 12 bits': (
        JPEG.replace(b'\xff\xc0\x00\x11\x08', b'\xff\xc0\x00\x11\x0c'),
        'a JPEG of 12 bits a sample, which cannot be read; save it with 8',
    ),
    'lossless JPEG': (
        JPEG.replace(b'\xff\xc0', b'\xff\xc3'),
        'a lossless or hierarchical JPEG, which cannot be read; save it otherwise',
    ),
    'PNG cut short': (PNG[: len(PNG) // 2], 'a PNG that is damaged or cut short'),
    'GIF cut short': (OTHERS['GIF'][0][:900], 'a GIF that is damaged or cut short'),
    'no pixels': (png_header(0, 10), 'a PNG that is damaged or cut short'),
    'floats': (
        np.zeros((4, 4, 3), np.float32),
        'float32 [4, 4, 3] is no image; uint8 [height, width, 3] or [height, wi',
    ),
    'empty array': (np.zeros((0, 4, 3), np.uint8), 'uint8 [0, 4, 3] is no image; uint8 [height, width, 3] or'),
    'channels': (np.zeros((4, 4, 4), np.uint8), 'uint8 [4, 4, 4] is no image'),
    'batch': (np.zeros((1, 4, 4, 3), np.uint8), 'uint8 [1, 4, 4, 3] is no image'),
    'narrow array': (np.zeros((1, 2000), np.uint8), '2000 x 1 pixels: too narrow'),
}


@pytest.mark.parametrize('name', BAD)
@pytest.mark.parametrize('preprocessing', [COLOURS, GRAY], ids=['colours', 'gray'])
def test_what_is_wrong_with_an_image_is_said(tmp_path, monkeypatch, preprocessing, name):
    """And does not concern the image before it or behind it."""
    write_files(tmp_path, {'text.png': b'hello', 'good.png': PNG})
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'lost.png').symlink_to('nowhere')
    os.mkfifo(tmp_path / 'pipe')
    monkeypatch.chdir(tmp_path)
    image, message = BAD[name]
    before, found, behind = prepare(preprocessing, ['good.png', image, PNG])
    np.testing.assert_array_equal(before, behind)
    assert isinstance(found, str)
    assert message in found


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_what_may_not_be_read_is_said(tmp_path):
    write_files(tmp_path, {'a.png': PNG, 'locked/b.png': PNG})
    for name in ('a.png', 'locked'):
        (tmp_path / name).chmod(0)
    paths = find_images([str(tmp_path)])
    assert paths == [f'{tmp_path}/a.png', f'{tmp_path}/locked']
    assert prepare(COLOURS, paths) == ['cannot be read: Permission denied'] * 2
    (tmp_path / 'locked').chmod(0o700)


def test_files_without_end_are_given_up(monkeypatch):
    monkeypatch.setattr(image_files, '_MAX_BYTES', 1000)
    assert prepare(COLOURS, ['/dev/zero']) == ['more than the 1,000 bytes allowed']


@pytest.mark.parametrize('preprocessing', [COLOURS, get_preprocessing('whole', 24)], ids=['window', 'all'])
@pytest.mark.parametrize('progressive', [False, True])
def test_libjpeg_tells_standard_error_nothing_of_files_that_are_cut_short(capfd, preprocessing, progressive):
    """In the header, and of a progressive one anywhere: `Improper call to JPEG library in state 201`, it would say."""
    data = image_file(PICTURE, 'JPEG', progressive=progressive, comment=b'x' * 300)
    scan = data.index(b'\xff\xda')
    ends = [4, 20, 200, 330, *range(scan - 20, scan + 12, 3)] + [scan + 60, len(data) - 30] * progressive
    evaluate = tf.function(preprocessing.host_eval, [tf.TensorSpec([], tf.string)], autograph=False)
    for end in ends:
        (found,) = prepare(preprocessing, [data[:end]])
        assert found in ('a JPEG with a damaged header', 'a JPEG that is damaged or cut short'), end
        with pytest.raises(tf.errors.InvalidArgumentError):
            evaluate(tf.constant(data[:end]))
    for tail in (b'', b'\0\0', b'what a camera adds'):
        np.testing.assert_array_equal(evaluate(tf.constant(data + tail)), evaluate(tf.constant(data)))
        assert read_header(data + tail, 'JPEG') == (40, 50, 3)
    assert 'JPEG' not in capfd.readouterr().err


def test_headers_of_jpegs_are_read_as_libjpeg_reads_them(shared_path):
    for path in sorted(shared_path('data/imagenet_raw_mini').glob('*/*/*.JPEG'))[::9]:
        data = path.read_bytes()
        assert read_header(data, 'JPEG') == tuple(tf.io.extract_jpeg_shape(data).numpy())
    filled = JPEG[:2] + b'\xff\xff' + JPEG[2:]
    assert read_header(filled, 'JPEG') == (40, 50, 3)


def test_damaged_headers_are_said_to_be_so():
    random = np.random.RandomState(0)
    for number in range(400):
        damaged = bytearray((JPEG, PNG, OTHERS['GIF'][0], OTHERS['WebP'][0])[number % 4])
        for position in random.randint(4, min(len(damaged), 300), 4):
            damaged[position] = random.randint(256)
        data = bytes(damaged[: random.randint(12, len(damaged))])
        with contextlib.suppress(BadImage):
            height, width, channels = read_header(data, image_format(data))
            assert 0 <= height * width <= MAX_PIXELS
            assert channels in range(256)


# ------------------------------------------------------------------------ streams


def test_only_the_next_batch_is_read_ahead():
    taken = 0

    def images():
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield PNG

    batches = prepare_batches(COLOURS, images(), 4)
    assert [len(next(batches)) for _ in range(2)] == [4, 4]
    assert taken == 12
    batches.close()
    assert taken == 12


def test_order_is_kept_and_the_last_batch_is_what_is_left():
    sizes = [*range(1, 8)]
    images = [np.full((size, size), 10 * size, np.uint8) for size in sizes]
    batches = list(prepare_batches(COLOURS, images, 3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    values = [float(image.max()) * 255 for batch in batches for image in batch if not isinstance(image, str)]
    np.testing.assert_allclose(values, [10 * size for size in sizes], rtol=1e-5)
    assert prepare(COLOURS, []) == []
