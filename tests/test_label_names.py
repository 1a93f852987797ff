"""Names of classes in the forms that people have them in."""

import json
import os
from pathlib import Path

import pytest

from engine.classifiers.label_names import read_label_names
from support.errors import InputError

NAMES = ('tench', 'goldfish', "bird's nest", 'crane, bird')
# Form -> what a file holds, of NAMES.
FORMS = {
    'lines': "tench\ngoldfish\nbird's nest\ncrane, bird\n",
    'lines of Windows, with a mark': "\ufefftench\r\ngoldfish\r\n\r\nbird's nest\r\ncrane, bird",
    'id:name': "0:tench\n1:goldfish\n2:bird's nest\n3:crane, bird\n",
    'id:name, in another order': "1: goldfish\n0: tench\n3: crane, bird\n2: bird's nest\n",
    'ids from 1': "1:tench\n2:goldfish\n3:bird's nest\n4:crane, bird\n",
    'id name': "0 tench\n1 goldfish\n2 bird's nest\n3 crane, bird\n",
    'id and tab': "0\ttench\n1\tgoldfish\n2\tbird's nest\n3\tcrane, bird\n",
    'id,name': "0,tench\n1,goldfish\n2,bird's nest\n3,crane, bird\n",
    'a table with a head': 'id,name\n0,tench\n1,goldfish\n2,bird\'s nest\n3,"crane, bird"\n',
    'YAML list': '- tench\n- goldfish\n- "bird\'s nest"\n- crane, bird\n',
    'YAML list below its name': "names:\n  - tench\n  - goldfish\n  - 'bird''s nest'\n  - crane, bird\n",
    'YAML dict below its name': "names:\n  0: tench\n  1: goldfish\n  2: bird's nest\n  3: crane, bird\n",
    'a list without brackets': "'tench',\n'goldfish',\n\"bird's nest\",\n'crane, bird'",
    'synset_words.txt': "n01440764 tench\nn01443537 goldfish\nn01443538 bird's nest\nn01443539 crane, bird\n",
    'Python dict': "{0: 'tench',\n 1: 'goldfish',\n 2: \"bird's nest\",\n 3: 'crane, bird'}\n",
    'Python dict, assigned': "labels = {0: 'tench', 1: 'goldfish', 2: \"bird's nest\", 3: 'crane, bird',}",
    'a dict without braces': "0: 'tench',\n1: 'goldfish',\n2: \"bird's nest\",\n3: 'crane, bird'",
    'Python list': "['tench', 'goldfish', \"bird's nest\", 'crane, bird']",
    'JSON list': json.dumps(NAMES),
    'JSON dict': json.dumps(dict(enumerate(NAMES))),
    'imagenet_class_index.json': json.dumps({str(i): [f'n0144076{i}', name] for i, name in enumerate(NAMES)}),
    'class_indices of Keras': json.dumps({name: i for i, name in enumerate(NAMES)}),
}
# What a file holds -> what is said.
REFUSED = {
    'a page': ('<!DOCTYPE html>\n<html>', 'a page of HTML or XML, not names of classes: one name a line, '),
    'pbtxt': ("item {\n  id: 1\n  name: 'a'\n}\n", 'a label map of the object detection API'),
    'half a dict': ("{0: 'tench',\n 1: 'gold", 'begins like a list or dict, but is neither JSON nor a Python lit'),
    'code': ("{0: __import__('os').system('true')}", 'neither JSON nor a Python literal: malformed node'),
    'a number missing': ("{0: 'a', 2: 'b', 3: 'c', 4: 'd'}", r"or 1 is missing \('b'\)"),
    'a line missing': ('0:a\n1:b\n3:c\n4:d', 'class 2 is listed twice, or 2 is missing'),
    'a number twice': ('0:a\n1:b\n1:c\n2:d', 'class 1 is listed twice'),
    'other keys': ('{"a": "x", "b": "y", "c": "z", "d": "w"}', "a dict whose key 'a' is not the number of a class"),
    'lists in a list': ('[[1, 2], [3, 4], [5, 6], [7, 8]]', r"'\[1, 2\]' is not the name of a class"),
    'deep': ('[' * 100_000, 'neither JSON nor a Python literal'),
    'no text': ('a\0b\n', 'no text, not names of classes'),
    'fewer': ('a\nb\n', '2 names; the net has 4 classes$'),
    'empty': ('', '0 names; the net has 4 classes'),
    'a number': ('{1}', 'a set, not names of classes'),
}


@pytest.mark.parametrize('form', FORMS)
def test_forms(tmp_path: Path, form: str) -> None:
    path = tmp_path / 'labels'
    path.write_bytes(FORMS[form].encode())
    assert read_label_names(str(path), 4, 0) == NAMES
    assert read_label_names(str(path), 3, 1) == NAMES[1:]


@pytest.mark.parametrize(
    'text', ['1 euro\n2 euro\n5 euro\n10 euro\n', 'n01440764\nn01443537\nn01443538\nn01443539', '7\n8\n9\n0']
)
def test_names_that_look_a_little_like_a_form(tmp_path: Path, text: str) -> None:
    (tmp_path / 'labels').write_text(text)
    assert read_label_names(str(tmp_path / 'labels'), 4, 0) == tuple(text.split('\n')[:4])


@pytest.mark.parametrize('case', REFUSED)
def test_refused(tmp_path: Path, case: str) -> None:
    path, (text, message) = tmp_path / 'labels', REFUSED[case]
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_label_names(str(path), 4, 0)
    assert str(error.value).startswith(f'--labels_path={path}: ')
    assert '\n' not in str(error.value)


def test_a_background_class_is_answered_with_the_flag(tmp_path: Path) -> None:
    (tmp_path / 'labels').write_text('background\n' + '\n'.join(NAMES))
    with pytest.raises(
        InputError, match=r"5 names; the net has 4 classes: give --labels_offset=1, .* first, 'background'"
    ):
        read_label_names(str(tmp_path / 'labels'), 4, 0)
    assert read_label_names(str(tmp_path / 'labels'), 4, 1) == NAMES
    with pytest.raises(InputError, match='5 names; the net has 6 classes: one is missing, perhaps the first'):
        read_label_names(str(tmp_path / 'labels'), 6, 0)


def test_files_that_never_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'pipe')
    for path in (str(tmp_path / 'pipe'), '/dev/zero'):
        with pytest.raises(InputError, match=f'--labels_path={path}: is a pipe or a device; must be a regular file'):
            read_label_names(path, 4, 0)
    large = tmp_path / 'large'
    with open(large, 'wb') as file:
        file.truncate(2**26 + 1)
    with pytest.raises(InputError, match='has 67,108,865 bytes, and files of this kind have at most 67,108,864'):
        read_label_names(str(large), 4, 0)
    with pytest.raises(InputError, match='Is a directory'):
        read_label_names(str(tmp_path), 4, 0)
    with pytest.raises(InputError, match=f'^--labels_path={tmp_path}/none: .*No such file'):
        read_label_names(str(tmp_path / 'none'), 4, 0)
