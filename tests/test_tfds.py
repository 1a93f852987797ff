"""Data sets of TensorFlow Datasets: read, converted, downloaded, refused."""

import hashlib
import json
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.core.download.checksums import UrlInfo

from datasets import tfds as reader
from datasets.conversion import tfds as converter
from datasets.dataset_factory import get_dataset
from support.errors import InputError
from tests.sources import SharedPath, record, web_server

WNIDS = ('n01694178', 'n02105855', 'n02447366')


IMAGE = tfds.features.Image()


class TinyClasses(tfds.core.GeneratorBasedBuilder):
    """Three classes of the miniature of ImageNet; the test split has no labels."""

    VERSION = tfds.core.Version('1.0.0')
    SOURCE = Path()
    FEATURES: ClassVar[dict[str, Any]] = {
        'image': tfds.features.Image(encoding_format='jpeg'),
        'label': tfds.features.ClassLabel(names=WNIDS),
        'file_name': tfds.features.Text(),
    }
    KEYS: tuple[str, str] | None = ('image', 'label')

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(self.FEATURES)
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=self.KEYS)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        return {
            'test': self._generate_examples('n02488702', -1),
            'train': self._generate_examples('*', None),
            'extra': self._generate_examples(WNIDS[0], None),
        }

    def _generate_examples(self, pattern: str, label: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in sorted(self.SOURCE.glob(f'{pattern}/*')):
            if path.parent.name in WNIDS or label is not None:
                of_class = path.parent.name if label is None else label
                yield path.name, {'image': str(path), 'label': of_class, 'file_name': path.name}


class NoLabels(TinyClasses):
    """All of it without labels."""

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        return {'test': self._generate_examples('n02488702', -1)}


class Segments(TinyClasses):
    """Not for classification."""

    FEATURES: ClassVar[dict[str, Any]] = {'image': IMAGE, 'mask': IMAGE}
    KEYS = ('image', 'mask')


class Unsupervised(TinyClasses):
    """Images only."""

    FEATURES: ClassVar[dict[str, Any]] = {'image': IMAGE}
    KEYS = None


class Deep(TinyClasses):
    """Images of 16 bits."""

    FEATURES: ClassVar[dict[str, Any]] = {
        'image': tfds.features.Image(shape=(8, 8, 1), dtype=np.uint16),
        'label': tfds.features.ClassLabel(num_classes=2),
    }


class Offline(TinyClasses):
    """Its download fails."""

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        raise OSError('no\n  network')


@pytest.fixture(scope='module')
def data_dir(shared_path: SharedPath, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of TFDS in which `tiny_classes` is prepared."""
    folder = tmp_path_factory.mktemp('tfds')
    TinyClasses.SOURCE = shared_path('data/imagenet_raw_mini/train')
    reader.open_builder('tiny_classes', str(folder))
    return folder


def test_a_builder_says_what_its_records_hold(data_dir: Path) -> None:
    builder = reader.open_builder('tiny_classes:1.0.0', str(data_dir))
    assert builder.name == 'tiny_classes/1.0.0'
    assert (builder.image_key, builder.label_key, builder.channels) == ('image', 'label', 3)
    assert builder.class_names == WNIDS
    assert list(builder.splits) == ['train', 'extra', 'test']  # the last is the one to evaluate
    assert all(Path(path).is_file() for paths in builder.splits.values() for path in paths)


def test_a_source_is_what_tfds_reads(data_dir: Path) -> None:
    source = converter.open_source('tiny_classes', str(data_dir))
    assert list(source.splits) == ['train', 'extra']  # test has no labels
    assert source.class_names == WNIDS
    builder = tfds.builder('tiny_classes', data_dir=str(data_dir))
    read = builder.as_dataset(split='train', decoders={'image': tfds.decode.SkipDecoding()})
    expected = [(example['image'].numpy(), int(example['label'])) for example in read]
    assert [(source.read(image), image.label) for image in source.splits['train']] == expected
    assert [image.name for image in source.splits['train']] == [f'train/{i:07d}' for i in range(5)]


def test_a_collection_gives_the_same_examples(data_dir: Path) -> None:
    source = converter.open_source('tiny_classes', str(data_dir))
    dataset = get_dataset('tfds:tiny_classes', str(data_dir), 'train')
    assert (dataset.num_examples, dataset.num_classes, dataset.label_names) == (5, 3, WNIDS)
    for number, image in enumerate(source.splits['train']):
        example = dataset.examples.load(number)
        assert (example['image'].numpy(), int(example['label'])) == (source.read(image), image.label)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('mnits', "no such data set in TensorFlow Datasets .* .did you mean 'mnist'"),
        ('../x', 'Parsing builder name string'),
        ('mnist:9.9.9', 'cannot be loaded at version 9.9.9'),
        ('segments', 'not for image classification: .*features image: Image, mask: Image'),
        ('unsupervised', 'its supervised_keys are None, .*features image: Image$'),
        ('deep', 'its images are uint16; only uint8'),
        ('offline', 'could not download or prepare it: no network; on a machine without network, give the published'),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as raised:
        reader.open_builder(name, str(tmp_path))
    assert str(raised.value).startswith(f'--dataset_name=tfds:{name}: ')
    assert '\n' not in str(raised.value)


def test_tfds_itself_is_silent(capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(InputError, match=r'^--dataset_name=tfds:huggingface:mnist: '):
        reader.open_builder('huggingface:mnist')  # it prints which packages to install
    assert capfd.readouterr() == ('', '')


def test_splits_to_convert_must_have_labels(data_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match='split test has images without labels'):
        converter.open_source('no_labels', str(tmp_path))
    converter.open_source('tiny_classes', str(data_dir))
    assert 'split test has images without labels, and is left out' in caplog.text


def copied(data_dir: Path, tmp_path: Path) -> Path:
    """Returns the file of the split train in a copy of the data set."""
    shutil.copytree(data_dir / 'tiny_classes', tmp_path / 'tiny_classes')
    (path,) = (tmp_path / 'tiny_classes').rglob('*train.tfrecord*')
    return path


JPEG, LABELLED = b'\xff\xd8', record(image=b'\xff\xd8', label=2)
BAD_RECORDS = {
    'no example': (b'hello', 'record 1: not an image with a label, or damaged'),
    'empty': (b'', 'record 1: not an image with a label'),
    'no image': (record(label=2), "record 1: .*'image'"),
    'no label': (record(image=JPEG), "record 1: .*'label'"),
    'cut': (LABELLED[:-2], 'record 1: .*no field of a tf.train.Example at byte'),
    'label': (record(image=JPEG, label=3), 'record 1: .*its label is 3 of 3 classes'),
}


@pytest.mark.parametrize('case', BAD_RECORDS)
def test_damaged_records_are_named(case: str, data_dir: Path, tmp_path: Path) -> None:
    content, message = BAD_RECORDS[case]
    path = copied(data_dir, tmp_path)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(LABELLED)
        writer.write(content)
    with pytest.raises(InputError, match=f'{path}, {message}'):
        converter.open_source('tiny_classes', str(tmp_path))


def test_missing_and_truncated_files_are_named(data_dir: Path, tmp_path: Path) -> None:
    path = copied(data_dir, tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=f'{path}: truncated or corrupt: record 4'):
        converter.open_source('tiny_classes', str(tmp_path))
    path.unlink()
    with pytest.raises(InputError, match=f'{path}: missing; remove its folder'):
        converter.open_source('tiny_classes', str(tmp_path))


def test_other_formats_of_files_are_refused(data_dir: Path, tmp_path: Path) -> None:
    copied(data_dir, tmp_path)
    metadata = tmp_path / 'tiny_classes/1.0.0/dataset_info.json'
    metadata.write_text(metadata.read_text().replace('"tfrecord"', '"array_record"'))
    with pytest.raises(InputError, match='stored as array_record, and only tfrecord can be read'):
        reader.open_builder('tiny_classes', str(tmp_path))


# Downloads

CONTENT = b'what is published'


FOREIGN: dict[str, dict[str, Any]] = {
    'of a feature': {'featuresDict': {'features': {'image': {'pythonClassName': 'evil_of_test.Image'}}}},
    'of the whole': {'pythonClassName': 'evil_of_test.Image'},
    'in JSON within JSON': {'jsonFeature': {'json': '{"type": "evil_of_test.Image", "content": {}}'}},
    'as TFDS wrote it once': {'type': 'evil_of_test.Image', 'content': '{}'},
}


@pytest.mark.parametrize('case', FOREIGN)
def test_types_of_others_are_refused_before_they_are_imported(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'evil_of_test.py').write_text(f'open({str(tmp_path / "was imported")!r}, "w")')
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / 'evil' / '1.0.0'
    folder.mkdir(parents=True)
    whole = {'pythonClassName': 'tensorflow_datasets.core.features.features_dict.FeaturesDict'}
    (folder / 'features.json').write_text(json.dumps({**whole, **FOREIGN[case]}))
    (folder / 'dataset_info.json').write_text(json.dumps({'name': 'evil', 'version': '1.0.0', 'splits': []}))
    with pytest.raises(InputError) as raised:
        get_dataset('tfds:evil', str(tmp_path), 'train')
    assert str(raised.value) == (
        f"{folder}/features.json: names the type 'evil_of_test.Image', and only those of tensorflow_datasets are "
        'allowed, as others would run code; prepare the data set with them'
    )
    assert not (tmp_path / 'was imported').exists()
    assert 'evil_of_test' not in sys.modules


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server on loopback that has the file `1.gz`."""
    (tmp_path / 'www').mkdir()
    (tmp_path / 'www/1.gz').write_bytes(CONTENT)

    with web_server(tmp_path / 'www') as address:
        yield f'http://{address}'


@pytest.mark.parametrize(
    ('builder', 'names'),
    [
        ('cifar10', ['cifar-10-binary.tar.gz']),
        ('tf_flowers', ['flower_photos.tgz']),
        ('mnist', [f'{p}-{k}-ubyte.gz' for p in ('t10k', 'train') for k in ('images-idx3', 'labels-idx1')]),
    ],
)
def test_tfds_knows_the_archives_by_their_published_names(builder: str, names: list[str]) -> None:
    # Without `importlib_resources`, which TFDS 4.9.10 needs and does not declare, this and every download fail.
    assert sorted(info.filename for info in tfds.builder_cls(builder).url_infos.values()) == names


def publish(monkeypatch: pytest.MonkeyPatch, url: str, content: bytes) -> None:
    """Makes TFDS take `url` for the only archive of every data set."""
    published = UrlInfo(size=len(content), checksum=hashlib.sha256(content).hexdigest(), filename='1.gz')
    monkeypatch.setattr(tfds, 'builder_cls', lambda _: types.SimpleNamespace(url_infos={url: published}))
    monkeypatch.setattr(downloader, 'MAX_RETRIES', 0)


def test_archives_are_downloaded_once(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, f'{server}/1.gz', CONTENT)
    for _ in range(2):
        folder = converter.download_archives('flowers', str(tmp_path / 'work'), str(tmp_path / 'tfds'))
        assert (Path(folder) / '1.gz').read_bytes() == CONTENT
        (tmp_path / 'www/1.gz').unlink(missing_ok=True)
    assert list((tmp_path / 'tfds/downloads/tf_flowers').glob('*.gz'))


def test_a_wrong_checksum_and_no_network_are_told_in_one_line(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, f'{server}/1.gz', b'other content')
    with pytest.raises(InputError, match=r'--dataset_name=mnist: .*has wrong checksum'):
        converter.download_archives('mnist', str(tmp_path / 'work'), str(tmp_path / 'tfds'))
    publish(monkeypatch, 'http://127.0.0.1:1/1.gz', CONTENT)
    with pytest.raises(InputError, match='give the published archives by --source_dir') as raised:
        converter.download_archives('mnist', str(tmp_path / 'work'), str(tmp_path / 'tfds'))
    assert '\n' not in str(raised.value)
    assert not (tmp_path / 'work').exists()
