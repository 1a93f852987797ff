"""ILSVRC2012 as a source: archives and folders, labels, bounding boxes, and what is refused."""

import os
import shutil
from pathlib import Path

import pytest

from datasets.conversion import bounding_boxes, imagenet
from support.errors import InputError
from tests.sources import IMAGE, SharedPath, described, tar_bytes, write_files

TENCH, GOLDFISH = 'n01440764', 'n01443537'


@pytest.fixture(scope='module')
def raw_mini(shared_path: SharedPath) -> Path:
    return shared_path('data/imagenet_raw_mini')


@pytest.fixture(scope='module')
def imagenet_tars(raw_mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature as the archives that ILSVRC publishes."""
    folder = tmp_path_factory.mktemp('ilsvrc')
    classes = {
        f'{path.name}.tar': tar_bytes({image.name: image.read_bytes() for image in path.iterdir()})
        for path in (raw_mini / 'train').iterdir()
    }
    validation = {path.name: path.read_bytes() for path in (raw_mini / 'validation').iterdir()}
    tars = {'ILSVRC2012_img_train.tar': tar_bytes(classes), 'ILSVRC2012_img_val.tar': tar_bytes(validation)}
    write_files(folder, tars)
    shutil.copy(raw_mini / 'imagenet_2012_validation_synset_labels.txt', folder)
    return folder


def test_imagenet_archives_are_read_in_place_and_equal_the_folders(raw_mini: Path, imagenet_tars: Path) -> None:
    before = sorted(imagenet_tars.iterdir())
    archived, folders = imagenet.open_source(str(imagenet_tars)), imagenet.open_source(str(raw_mini))
    assert described(archived) == described(folders)
    assert {split: len(images) for split, images in archived.splits.items()} == {'train': 25, 'validation': 12}
    assert {image.path for image in archived.splits['train']} == {str(imagenet_tars / 'ILSVRC2012_img_train.tar')}
    for image in folders.splits['train']:
        assert folders.read(image) == (raw_mini / image.name).read_bytes()
    assert sorted(imagenet_tars.iterdir()) == before  # nothing was unpacked


def test_what_is_left_out_of_all_classes_is_said_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    contents = {f'train/{TENCH}/1.JPEG': IMAGE, f'train/{GOLDFISH}/1.jpe': IMAGE}
    others = (f'train/{TENCH}/a.tif', f'train/{GOLDFISH}/b.TIF', f'train/{TENCH}/x.db', f'train/{TENCH}/@eaDir/1.JPEG')
    write_files(tmp_path, {**contents, **dict.fromkeys(others, b'')})
    with caplog.at_level('INFO', 'absl'):
        source = imagenet.open_source(str(tmp_path))
    assert len(source.splits['train']) == 2
    expected = f'{tmp_path}/train: 3 files left out: 2 .tif, 1 .db; 1 folder left out: 1 @eaDir'
    assert [message for message in caplog.messages if 'left out' in message] == [expected]


def test_imagenet_labels_are_those_of_the_class_list(raw_mini: Path, shared_path: SharedPath) -> None:
    source = imagenet.open_source(str(raw_mini), class_names_file=str(shared_path('data/labels/imagenet_metadata.txt')))
    assert len(source.class_names) == len(source.class_ids) == 1001
    assert source.class_names[:2] == ('background', 'tench, Tinca tinca')
    assert source.class_ids[:2] == ('', TENCH)
    for image in source.splits['train']:
        assert source.class_ids[image.label] == image.name.split('/')[1]
    lines = (raw_mini / 'imagenet_2012_validation_synset_labels.txt').read_text().split()
    assert [source.class_ids[image.label] for image in source.splits['validation']] == lines
    assert imagenet.open_source(str(raw_mini)).class_names[1] == TENCH


@pytest.mark.parametrize('layout', ['flat val', 'class folders', 'flat tar with a folder'])
def test_imagenet_validation_layouts_give_the_same_labels(layout: str, raw_mini: Path, tmp_path: Path) -> None:
    wnids = (raw_mini / 'imagenet_2012_validation_synset_labels.txt').read_text().split()
    images = {path.name: path.read_bytes() for path in sorted((raw_mini / 'validation').iterdir())}
    folder = dict(zip(images, wnids, strict=True))
    match layout:
        case 'flat val':
            write_files(tmp_path / 'val', images)
            shutil.copy(raw_mini / 'imagenet_2012_validation_synset_labels.txt', tmp_path)
        case 'class folders':
            write_files(tmp_path / 'validation', {f'{folder[name]}/{name}': images[name] for name in images})
        case _:
            content = tar_bytes({f'./val/{name}': images[name] for name in images})
            write_files(tmp_path, {'ILSVRC2012_img_val.tar': content})
    named = str(raw_mini / 'imagenet_2012_validation_synset_labels.txt') if layout.endswith('a folder') else None
    source = imagenet.open_source(str(tmp_path), validation_labels_file=named)
    assert list(source.splits) == ['validation']
    found = {os.path.basename(image.name): source.class_ids[image.label] for image in source.splits['validation']}
    assert found == folder


def test_a_validation_label_goes_by_the_number_in_the_name(tmp_path: Path) -> None:
    write_files(tmp_path, {'val/ILSVRC2012_val_00000003.JPEG': b'x', 'val/ILSVRC2012_val_00050000.JPEG': b'x'})
    source = imagenet.open_source(str(tmp_path))
    # The third and the last line of the list that tensorflow_datasets carries.
    assert [source.class_ids[image.label] for image in source.splits['validation']] == ['n02105855', 'n02437616']


TRAIN, VALIDATION = {f'train/{TENCH}/1.JPEG': IMAGE}, {'val/ILSVRC2012_val_00000001.JPEG': IMAGE}


def train_tar(members: dict[str, bytes]) -> dict[str, bytes]:
    return {'ILSVRC2012_img_train.tar': tar_bytes(members)}


# What there is, the option that names the file or folder `given` in it, if any, and what is said.
BAD_IMAGENET: dict[str, tuple[dict[str, bytes], str, str]] = {
    'nothing': ({'x': b''}, '', 'has none of ILSVRC2012_img_train.tar, train, ILSVRC2012_img_val.tar, validation, val'),
    'unknown class folder': ({'train/n00000001/1.JPEG': IMAGE}, '', "'n00000001' is none of the 1000 classes"),
    'empty class folder': (TRAIN | {f'train/{GOLDFISH}/.keep': b''}, '', f'class {GOLDFISH} holds no images'),
    'no class folders': ({'train/1.JPEG': IMAGE}, '', 'train: has no class folders, such as n01440764'),
    'images beside classes': (
        {f'val/{TENCH}/1.JPEG': IMAGE, 'val/2.JPEG': IMAGE},
        '',
        'holds images outside its class folders, such as 2.JPEG',
    ),
    'unknown class tar': (
        train_tar({'dogs.tar': tar_bytes({'1.JPEG': IMAGE})}),
        '',
        "'dogs' is none of the 1000 classes",
    ),
    'not a class tar': (train_tar({f'{TENCH}.zip': b''}), '', f'member {TENCH}.zip is not the tar of a class'),
    'empty class tar': (
        train_tar({f'{TENCH}.tar': tar_bytes({'readme': b''})}),
        '',
        f'class {TENCH} holds no images',
    ),
    'truncated class tar': (
        train_tar({f'{TENCH}.tar': tar_bytes({'1.JPEG': IMAGE * 999})[:1024]}),
        '',
        f"ILSVRC2012_img_train.tar, member {TENCH}.tar: truncated or corrupt after '1.JPEG': unexpected end of data",
    ),
    'member twice': (
        train_tar({f'{place}{TENCH}.tar': tar_bytes({'1.JPEG': IMAGE}) for place in ('', './')}),
        '',
        f'train/{TENCH}/1.JPEG: found twice',
    ),
    'validation number': ({'val/ILSVRC2012_val_00050001.JPEG': IMAGE}, '', 'has no label: there are 50000 validation'),
    'validation number 0': ({'val/ILSVRC2012_val_00000000.JPEG': IMAGE}, '', 'has no label: there are 50000'),
    'validation name': ({'val/1.JPEG': IMAGE}, '', '1.JPEG is not named as validation images are'),
    'validation empty': ({'val/readme': b''}, '', 'val: holds no images'),
    'validation label': (
        VALIDATION | {'given': f'{TENCH}\n490\n'.encode()},
        'validation_labels_file',
        "given, line 2: '490' is none of the 1000 WordNet ids",
    ),
    'no labels file': (VALIDATION, 'validation_labels_file', 'not a file of UTF-8 text: .*No such file'),
    'labels without validation': (
        TRAIN | {'given': b''},
        'validation_labels_file',
        '^--validation_labels_file=.*/given: has no effect, because .* has no validation images; leave it out$',
    ),
    'labels for class folders': (
        {f'validation/{TENCH}/1.JPEG': IMAGE, 'given': b''},
        'validation_labels_file',
        '^--validation_labels_file=.*/given: has no effect, because .*/validation has class folders; leave it out$',
    ),
    'class without name': (
        TRAIN | {'given': f'{TENCH} tench\n'.encode()},
        'class_names_file',
        f'given: has no name for {GOLDFISH}',
    ),
    'binary names': (TRAIN | {'given': b'\xff\xfe'}, 'class_names_file', 'given: not a file of UTF-8 text'),
    'no boxes folder': (TRAIN, 'bounding_box_dir', 'given: no such folder, nor a CSV'),
    'no annotations': (TRAIN | {'given/readme': b''}, 'bounding_box_dir', 'holds no .xml files'),
    'boxes of others': (TRAIN | {'given/2.xml': b''}, 'bounding_box_dir', 'given: has no box for any image'),
}


@pytest.mark.parametrize('case', BAD_IMAGENET)
def test_bad_imagenet_sources_are_refused(case: str, tmp_path: Path) -> None:
    contents, option, message = BAD_IMAGENET[case]
    write_files(tmp_path, contents)
    with pytest.raises(InputError, match=message):
        imagenet.open_source(str(tmp_path), **({option: str(tmp_path / 'given')} if option else {}))


ANNOTATION = """<annotation><filename>%s</filename><size><width>200</width><height>100</height><depth>3</depth></size>{}
</annotation>"""
OBJECT = '<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>'
BOXES = {
    'one': ([(TENCH, 20, 10, 100, 50)], ((0.1, 0.1, 0.5, 0.5),)),
    'cut off': ([(TENCH, -20, 10, 300, 90)], ((0.1, 0.0, 0.9, 1.0),)),
    'swapped': ([(TENCH, 100, 50, 20, 10)], ((0.1, 0.1, 0.5, 0.5),)),
    'in words': ([('fish', 20, 10, 100, 50)], ((0.1, 0.1, 0.5, 0.5),)),
    'of another class': ([(GOLDFISH, 20, 10, 100, 50), (TENCH, 0, 0, 200, 100)], ((0.0, 0.0, 1.0, 1.0),)),
    'without area': ([(TENCH, 20, 10, 20, 50), (TENCH, 210, 10, 220, 50)], ()),
    'none': ([], ()),
}


def annotation(objects: list[tuple[str, int, int, int, int]]) -> bytes:
    return ANNOTATION.format(''.join(OBJECT.format(*fields) for fields in objects)).encode()


@pytest.mark.parametrize('case', BOXES)
def test_boxes_are_shares_of_the_sides(case: str, tmp_path: Path) -> None:
    objects, expected = BOXES[case]
    (tmp_path / '1.xml').write_bytes(annotation(objects))
    assert bounding_boxes.read_annotation(str(tmp_path / '1.xml'), TENCH) == expected


def test_images_get_the_boxes_of_their_names(tmp_path: Path) -> None:
    names = ('n01440764_1', 'n01440764_2')
    write_files(tmp_path / 'train' / TENCH, {f'{name}.JPEG': IMAGE for name in names})
    xml = annotation([(TENCH, 20, 10, 100, 50), (TENCH, 0, 0, 200, 100)])
    write_files(tmp_path / 'boxes', {f'deep/{TENCH}/{names[1]}.xml': xml})
    rows = [f'{names[1]}.JPEG,0.1,0.1,0.5,0.5', f'{names[1]}.JPEG,0.0,0.0,1.0,1.0', 'other.JPEG,0,0,1,1']
    (tmp_path / 'boxes.csv').write_text('\n'.join(rows))
    for boxes in ('boxes', 'boxes.csv'):
        source = imagenet.open_source(str(tmp_path), bounding_box_dir=str(tmp_path / boxes))
        found = {image.name: image.boxes for image in source.splits['train']}
        expected = ((0.1, 0.1, 0.5, 0.5), (0.0, 0.0, 1.0, 1.0))
        assert found == {f'train/{TENCH}/{names[0]}.JPEG': (), f'train/{TENCH}/{names[1]}.JPEG': expected}


ENTITIES = '<!DOCTYPE a [<!ENTITY x "xx"><!ENTITY y "&x;&x;">]>' + annotation([]).decode().replace('%s', '&y;')
BAD_ANNOTATIONS = {
    'entities': (ENTITIES.encode(), 'has a DOCTYPE'),
    'entities in UTF-16': (('<?xml version="1.0" encoding="utf-16"?>' + ENTITIES).encode('utf-16'), 'has a DOCTYPE'),
    'not XML': (b'P6 1 1', '1.xml: not an annotation of ILSVRC: syntax error'),
    'truncated': (annotation([(TENCH, 1, 1, 2, 2)])[:-20], 'not an annotation'),
    'no size': (b'<annotation/>', 'not an annotation'),
    'no number': (annotation([(TENCH, 1, 1, 2, 2)]).replace(b'<xmin>1', b'<xmin>one'), 'not an annotation'),
}


@pytest.mark.parametrize('case', BAD_ANNOTATIONS)
def test_bad_annotations_are_refused(case: str, tmp_path: Path) -> None:
    content, message = BAD_ANNOTATIONS[case]
    (tmp_path / '1.xml').write_bytes(content)
    with pytest.raises(InputError, match=message):
        bounding_boxes.read_annotation(str(tmp_path / '1.xml'), TENCH)


def test_a_bad_line_of_a_csv_of_boxes_is_named(tmp_path: Path) -> None:
    (tmp_path / 'boxes.csv').write_text('1.JPEG,0,0,1,1\n2.JPEG,0,0,1\n')
    with pytest.raises(InputError, match=r"boxes\.csv, line 2: not of the form .*: '2\.JPEG,0,0,1'"):
        bounding_boxes.open_boxes(str(tmp_path / 'boxes.csv'))
