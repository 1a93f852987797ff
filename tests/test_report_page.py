"""The page of a report and the files beside it, without a browser: `test_report_browser.py` opens it in one."""

import csv
import resource
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from configs.evaluation import REPORT_FILES
from engine.evaluation.outcomes import make_outcomes
from engine.evaluation.report import confusion, markup
from engine.evaluation.report.__main__ import main
from engine.evaluation.report.content import Content
from engine.evaluation.report.page import write_report
from support.errors import InputError
from tests.reports import HOSTILE, content_of, every_part, outcomes_of

LARGEST = 5_000_000
ALWAYS = {
    *('report.html', 'confusion.png', 'per_class.png', 'reliability.png'),
    *('confusion.csv', 'confused_pairs.csv', 'per_class.csv', 'calibration.csv'),
}
NAMES = tuple(f'name {i}' for i in range(10))


class Page(HTMLParser):
    """What a page consists of; fails if an element is not closed where it should be."""

    EMPTY = ('meta', 'img', 'input')

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ''
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def sections(self) -> list[str | None]:
        return [attributes['id'] for tag, attributes in self.tags if tag == 'section']


def written(folder: Path, content: Content) -> Page:
    write_report(str(folder), content)
    html = (folder / 'report.html').read_bytes()
    assert len(html) < LARGEST
    return Page(html.decode())


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def with_scores(count: int, **columns) -> Content:
    """Returns the content of a report of examples of class 0 of 3 that are predicted right, unless said otherwise."""
    usual = {'numbers': range(count), 'labels': [0] * count, 'predictions': [0] * count, 'correct': [True] * count}
    scores = {'ranks': [1] * count, 'probabilities': [0.5] * count, 'confidences': [0.5] * count}
    return content_of([make_outcomes(**{**usual, **scores, **columns})], NAMES[:3])


@pytest.mark.quick('empty', 'one_example', 'scores_not_finite', 'absent_class', '20000_classes')
@pytest.mark.parametrize(
    ('content', 'texts'),
    [
        pytest.param(with_scores(0), ['0 examples, 3 classes', 'has no examples'], id='empty'),
        pytest.param(with_scores(1), ['1 example, 3 classes', '100.00\u00a0%'], id='one_example'),
        pytest.param(
            with_scores(2, confidences=[np.nan] * 2, probabilities=[np.nan] * 2, ranks=[0, 0]),
            ['2 examples have scores that are not finite'],
            id='scores_not_finite',
        ),
        pytest.param(
            with_scores(2, labels=[-1, 0], correct=[False, True], ranks=[0, 1]),
            ['1 examples have a label that is no class of the net'],
            id='foreign_label',
        ),
        pytest.param(
            with_scores(4, labels=[2] * 4, correct=[False] * 4),
            ['1 of 3 classes are neither label nor prediction: name 1.'],
            id='absent_class',
        ),
        pytest.param(content_of([outcomes_of(2, 50)]), ['class 0', 'class 1'], id='two_classes_without_names'),
        pytest.param(content_of([outcomes_of(50, 2000)]), ['Confusion matrix of 50 classes'], id='fifty_classes'),
        pytest.param(
            content_of([outcomes_of(20_000, 60_000)], [f'name {i}' for i in range(20_000)]),
            ['Confusion matrix of 1154 groups of classes', 'The table has the 1,200 classes with most mistakes'],
            id='20000_classes',
            marks=pytest.mark.full,
        ),
        pytest.param(
            content_of([outcomes_of(10, 90)] * 8), ['Side by side', 'so are those of 2 more files'], id='8_files'
        ),
    ],
)
def test_contents_of_all_kinds(tmp_path, content, texts):
    page = written(tmp_path, content)
    shown = page.text + ' '.join(value or '' for _, attributes in page.tags for value in attributes.values())
    assert not [text for text in texts if text not in shown]
    assert {path.name for path in tmp_path.iterdir()} >= ALWAYS
    assert 'nan' not in page.text.lower().replace('isnan', '').split()
    assert 'nan%' not in page.text


def test_names_are_escaped_everywhere(tmp_path):
    """In text, attributes, charts, the script's data, CSV."""
    names = HOSTILE * 5  # above 20 classes the page has a map with data
    for folder, classes in (('few', 10), ('many', 50)):
        content = content_of([outcomes_of(classes, 2000)], names[:classes], **every_part(HOSTILE))
        page = written(tmp_path / folder, content)
        scripts = [attributes.get('type') for tag, attributes in page.tags if tag == 'script']
        assert scripts == (['application/json', None] if classes > 20 else [None])
        for tag, attributes in page.tags:
            assert not any(name.startswith('on') for name in attributes), attributes
            if tag == 'img':
                assert attributes.keys() <= {'src', 'alt', 'class', 'width', 'height', 'decoding'}
                assert (attributes['src'] or '').startswith('data:image/')
        assert '日本語の名前' in page.text
        assert 'reversed \\u202e and \\x1b[31m red \\x00' in page.text
        cells = [cell for row in table(tmp_path / folder / 'per_class.csv') for cell in row.values()]
        assert '\'=HYPERLINK("http://localhost")' in cells
        assert not any('\x1b' in cell for cell in cells)


def test_a_page_of_everything_is_small(tmp_path):
    """Noise, which compresses worst, in pictures of photographs' size."""
    parts = every_part(HOSTILE, side=500)
    content = content_of([outcomes_of(1000, 50_000)], NAMES, **{**parts, 'galleries': parts['galleries'] * 9})
    page = written(tmp_path, content)
    assert 'more pictures are left out' in page.text
    assert page.sections() == [
        *('headline', 'curves', 'confusion', 'pairs', 'classes', 'galleries', 'calibration', 'filters'),
        *('preprocessing', 'recipe', 'environment', 'files'),
    ]


def test_tables_are_those_of_the_statistics(tmp_path):
    """Of two files, by their paths; the pictures' names are linked from the page."""
    content = content_of([outcomes_of(10, 300), outcomes_of(10, 300, seed=0, share=0.8)], NAMES)
    page = written(tmp_path, content)
    first, second = content.subjects
    for subject in content.subjects:
        rows = [row for row in table(tmp_path / 'per_class.csv') if row['path'] == subject.path]
        for row, each in zip(rows, subject.statistics.classes, strict=True):
            assert (row['name'], int(row['support'])) == (NAMES[each.index], each.support)
            values = (each.accuracy, *each.interval, each.precision, each.f1)
            assert [
                float(row[key]) for key in ('accuracy', 'accuracy_low', 'accuracy_high', 'precision', 'f1')
            ] == list(values)
        cells = [row for row in table(tmp_path / 'confusion.csv') if row['path'] == subject.path]
        dense = np.zeros((10, 10), int)
        for row in cells:
            dense[int(row['label']), int(row['prediction'])] = int(row['count'])
        np.testing.assert_array_equal(dense, subject.statistics.confusion.toarray())
        pairs = [row for row in table(tmp_path / 'confused_pairs.csv') if row['path'] == subject.path]
        assert sum(int(row['count']) for row in pairs) == dense.sum() - dense.trace()
        bins = [row for row in table(tmp_path / 'calibration.csv') if row['path'] == subject.path]
        assert sum(int(row['count']) for row in bins) == 300
    differing = first.outcomes.correct != second.outcomes.correct
    rows = table(tmp_path / 'differences.csv')
    assert [row['id'] for row in rows] == [content.example_ids[i] for i in np.flatnonzero(differing).tolist()]
    assert [row[f'correct: {first.path}'] for row in rows] == [
        str(int(each)) for each in first.outcomes.correct[differing]
    ]
    links = {attributes.get('href') for tag, attributes in page.tags if tag == 'a'}
    assert {path.name for path in tmp_path.iterdir()} - {'report.html'} <= links
    assert {path.name for path in tmp_path.iterdir()} <= set(REPORT_FILES)
    assert 'Do they differ?' in page.text


def test_an_earlier_report_is_replaced_and_other_files_stay(tmp_path):
    (tmp_path / 'notes.txt').write_text('mine')
    write_report(str(tmp_path), content_of([outcomes_of(3, 20)]))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_report(str(tmp_path), content_of([outcomes_of(4, 20)]))
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] == before[name]} == {'notes.txt'}
    write_report(str(tmp_path), content_of([outcomes_of(4, 20)]))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == after


def test_a_full_disk_leaves_the_earlier_report(tmp_path):
    """A limit on the size of files fails writes as a full disk does."""
    write_report(str(tmp_path), content_of([outcomes_of(3, 20)]))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(InputError, match=rf'^--report_dir={tmp_path}: .*File too large'):
            write_report(str(tmp_path), content_of([outcomes_of(4, 20)]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').write_text('mine')
    for folder in (tmp_path / 'file', tmp_path / 'file' / 'deeper'):
        with pytest.raises(InputError, match=rf'^--report_dir={folder}: [^\n]*$'):
            write_report(str(folder), content_of([outcomes_of(3, 20)]))
    assert (tmp_path / 'file').read_text() == 'mine'


def test_similar_classes_stand_together():
    """Two groups of classes that are confused, with numbers that alternate."""
    counts = np.zeros((8, 8), int)
    for group in (range(0, 8, 2), range(1, 8, 2)):
        counts[np.ix_(group, group)] = 5
    np.fill_diagonal(counts, 50)
    for size in (8, confusion._MOST_CLUSTERED + 1):
        sparse = scipy.sparse.coo_array(counts)
        sized = scipy.sparse.coo_array((sparse.data, (sparse.row, sparse.col)), shape=(size, size)).tocsr()
        order = confusion.similarity_order(sized)
        assert sorted(order) == list(range(size))
        parity = [i % 2 for i in order if i < 8]
        assert parity in ([0] * 4 + [1] * 4, [1] * 4 + [0] * 4)


def test_groups_of_classes_keep_all_examples():
    outcomes = content_of([outcomes_of(50, 500)])
    counts = outcomes.subjects[0].statistics.confusion
    grid = confusion.make_grid(counts, np.arange(50)[::-1], str, most=12)
    assert (grid.group, grid.counts.shape, grid.counts.sum()) == (5, (10, 10), 500)
    assert (grid.names[1], grid.numbers[1]) == ('44 … 40', 44)
    assert grid.counts[1, 0] == counts[40:45][:, 45:].sum()
    odd = confusion.make_grid(counts, np.arange(49), str, most=12)
    assert (odd.names[0], odd.names[-1]) == ('0 … 4', '45 … 48')


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('plain', 'plain'),
        ('two \n lines\t', 'two lines'),
        ('\u202egnp', '\\u202egnp'),
        ('می\u200cخواهم', 'می\u200cخواهم'),
        ('x' * 50, 'xxxxxxxxxx…xxxxxxxxx'),
        ('\ud800', '\\ud800'),
    ],
)
def test_names_as_shown(text, shown):
    assert markup.shorten(text, 20) == shown
    assert markup.to_html(markup.element('p', text))


@pytest.mark.parametrize('paths', [('',), ('/a', '/b')])
def test_a_report_of_rows_alone(tmp_path, capsys, paths):
    """Of one file, and of two on the same examples."""
    rows, folder = tmp_path / 'p.jsonl', tmp_path / 'a' / 'report'
    lines = [
        f'{{"path": "{path}", "id": "{i}.png", "label": {i % 3}, "label_name": "c{i % 3}", "prediction": 1, '
        f'"prediction_name": "c1", "correct": {int(i % 3 == 1)}, "rank": 1, "probability": 0.5, '
        '"top_k_probabilities": [0.5]}'
        for path in paths
        for i in range(6)
    ]
    rows.write_text('\n'.join(lines))
    assert main([str(rows), f'--report_dir={folder}', f'--results_path={folder}/r.json']) == 0
    page = Page((folder / 'report.html').read_text())
    assert 'p.jsonl' in page.text
    assert (folder / 'differences.csv').exists() == (len(paths) == 2)
    capsys.readouterr()
    assert main([str(rows), f'--report_dir={rows}']) == 1
    assert capsys.readouterr().err == f'error: --report_dir={rows}: {rows} is not a folder\n'
    assert main([str(rows), f'--results_path={rows}']) == 1
    assert capsys.readouterr().err == f'error: --results_path={rows}: is also ROWS; give another name\n'
    assert len(rows.read_text().splitlines()) == len(lines)
