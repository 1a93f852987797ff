"""Bounding boxes of ILSVRC's images, from its annotation XML or slim's CSV of it.

    get_boxes = open_boxes('/data/annotations')         # a folder of XML files, or a CSV
    get_boxes('n02105855_1', 'n02105855')               # ((ymin, xmin, ymax, xmax), ...) as shares of the sides

The rules are those of slim's process_bounding_boxes.py: sides are taken from the annotation, not from the image;
boxes are clipped to the image; a box without area, or with another class than the image, is left out.
"""

import csv
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

from datasets.files import list_folder
from datasets.regular_files import read_file
from datasets.source import Box
from support.errors import InputError

BoxesOfImage = Callable[[str, str], tuple[Box, ...]]
_MAX_ANNOTATION = 2**20  # a few hundred bytes per box
_WNID = re.compile(r'n\d{8}')


def open_boxes(path: str) -> BoxesOfImage:
    """Returns a function (image name without extension, its WordNet id) -> boxes.

    Args:
        path: A folder with an XML file for each annotated image, at any depth, or slim's CSV: lines of
            `image name, xmin, ymin, xmax, ymax` in shares.

    Raises:
        InputError: Nothing is found there; later, if an XML file cannot be read.
    """
    if os.path.isfile(path):
        return _open_csv(path)
    if not os.path.isdir(path):
        raise InputError(f'--bounding_box_dir={path}: no such folder, nor a CSV file')
    annotations = [entry for entry in list_folder(path) if entry.name.endswith('.xml')]
    files = {os.path.basename(entry.name).removesuffix('.xml'): entry.path for entry in annotations}
    if not files:
        raise InputError(f'--bounding_box_dir={path}: holds no .xml files')
    return lambda name, wnid: read_annotation(files[name], wnid) if name in files else ()


class _Builder(ET.TreeBuilder):
    """Refuses a DOCTYPE: ILSVRC's files have none, and entities can be declared only there."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise ValueError(f'has a DOCTYPE, {name!r}; an annotation needs none')


def read_annotation(path: str, wnid: str) -> tuple[Box, ...]:
    """Returns the boxes of an annotation, except those of another class than `wnid`.

    Many objects are named in words instead of by id, so only a different id counts as another class.
    """
    try:
        root = ET.fromstring(read_file(path, _MAX_ANNOTATION), ET.XMLParser(target=_Builder()))
        width, height = (float(root.findtext(f'size/{side}', '')) for side in ('width', 'height'))
        objects = [child for child in root.iter('object') if _may_be(child.findtext('name', ''), wnid)]
        corners = [
            [float(box.findtext(key, '')) for key in ('ymin', 'xmin', 'ymax', 'xmax')]
            for child in objects
            for box in child.iter('bndbox')
        ]
    except (OSError, ValueError, LookupError, ET.ParseError) as error:
        raise InputError(f'{path}: not an annotation of ILSVRC: {error}') from error
    if width <= 0 or height <= 0:
        return ()
    boxes = (_clip(ymin / height, xmin / width, ymax / height, xmax / width) for ymin, xmin, ymax, xmax in corners)
    return tuple(box for box in boxes if _has_area(box))


def _may_be(name: str, wnid: str) -> bool:
    return name == wnid or not _WNID.fullmatch(name)


def _clip(ymin: float, xmin: float, ymax: float, xmax: float) -> Box:
    top, bottom = sorted(min(max(value, 0.0), 1.0) for value in (ymin, ymax))
    left, right = sorted(min(max(value, 0.0), 1.0) for value in (xmin, xmax))
    return top, left, bottom, right


def _has_area(box: Box) -> bool:
    ymin, xmin, ymax, xmax = box
    return ymin < ymax and xmin < xmax


def _open_csv(path: str) -> BoxesOfImage:
    boxes: dict[str, tuple[Box, ...]] = {}
    try:
        with open(path, encoding='utf-8-sig', newline='') as file:
            for number, row in enumerate(csv.reader(file), start=1):
                name, box = _parse_row(row, f'{path}, line {number}')
                if _has_area(box):
                    boxes[name] = (*boxes.get(name, ()), box)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f'{path}: not a CSV file: {error}') from error
    return lambda name, _: boxes.get(name, ())


def _parse_row(row: list[str], where: str) -> tuple[str, Box]:
    try:
        name, *sides = row
        xmin, ymin, xmax, ymax = (float(side) for side in sides)
    except ValueError as error:
        raise InputError(f'{where}: not of the form `image.JPEG,xmin,ymin,xmax,ymax`: {",".join(row)!r}') from error
    return os.path.splitext(name)[0], _clip(ymin, xmin, ymax, xmax)
