"""Writes a report: one page that needs nothing else, beside pictures and tables.

write_report('/tmp/report', content)      # report.html, *.png, *.csv
"""

import base64
import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf

from engine.evaluation.report import charts, sections
from engine.evaluation.report.content import Content
from engine.evaluation.report.csv_files import csv_tables
from engine.evaluation.report.markup import Element, element, raw, shorten, to_html
from engine.evaluation.report.pictures import Pictures
from support.atomic import atomic_file, flush_to_disk
from support.errors import InputError, first_line, io_errors

_PAGE = 'report.html'
_ROOM_FOR_PICTURES = 2_500_000  # bytes
_MOST_PANELS = 12  # of a PNG
_SECTIONS = (
    *(sections.headline, sections.learning_curves, sections.confusion_matrix, sections.confused_pairs),
    *(sections.per_class, sections.galleries, sections.calibration, sections.first_layer),
    *(sections.preparations, sections.recipe, sections.environment),
)


def write_report(folder: str, content: Content) -> None:
    """Writes report.html, below 5 MB, and its PNG and CSV files; existing files of these names are replaced.

    All files are written under other names first, and then put in place one by one, the page last.

    Args:
        folder: The folder, which is made if it is missing. Other files in it stay.
        content: What to show; at least one subject.

    Raises:
        InputError: the folder cannot be made, or a file cannot be written; existing files are unharmed.
    """
    draft = sections.Draft(content, Pictures(_ROOM_FOR_PICTURES))
    files = {**_pngs(draft), **csv_tables(content)}
    files = {_PAGE: to_html(page(draft, list(files))), **files}
    try:
        tf.io.gfile.makedirs(folder)
        with contextlib.ExitStack() as all_written:  # which puts the first file in place last
            for name, content_of_file in files.items():
                part = all_written.enter_context(atomic_file(os.path.join(folder, name)))
                with tf.io.gfile.GFile(part, 'wb') as file:
                    file.write(content_of_file)
                flush_to_disk(part)
    except io_errors() as error:
        raise InputError(f'--report_dir={folder}: {first_line(error)}') from error


def page(draft: sections.Draft, files: Sequence[str] = ()) -> Element:
    """Returns the page as a tree.

    Args:
        draft: The content.
        files: Names of the files beside it.
    """
    made = [each for make in _SECTIONS if (each := make(draft)) is not None]
    script, style = (Path(__file__).with_name(name).read_text() for name in ('page.js', 'page.css'))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # The page runs its own script only, and asks no host for anything, whatever a name in it contains.
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    title = shorten(draft.content.title, 200)
    links = [element('li', element('a', each.findtext('h2') or '', href=f'#{each.get("id")}')) for each in made]
    examples = draft.first.statistics.num_examples
    head = element(
        'head',
        element('meta', charset='utf-8'),
        element('meta', http_equiv='Content-Security-Policy', content=policy),
        element('meta', name='viewport', content='width=device-width, initial-scale=1'),
        element('meta', name='color-scheme', content='light dark'),
        element('title', title),
        raw('style', style),
    )
    body = element(
        'body',
        element('a', 'Skip to the results', href='#main', class_='skip'),
        element(
            'header',
            element('h1', title),
            element(
                'p', f'{examples:,} {"example" if examples == 1 else "examples"}, {_classes(draft)}', class_='note'
            ),
        ),
        element('nav', element('ul', links), aria_label='Sections'),
        element('main', made, _files(files), id='main', tabindex='-1'),
        raw('script', script),
    )
    return element('html', head, body, lang='en')


def _classes(draft: sections.Draft) -> str:
    count = len(draft.content.label_names) or len(draft.classes)
    return f'{count:,} {"class" if count == 1 else "classes"}'


def _files(names: Sequence[str]) -> Element:
    links = [element('li', element('a', name, href=name)) for name in sorted(names)]
    return sections.section('files', 'Files beside this page', element('ul', links, class_='files'))


def _pngs(draft: sections.Draft) -> Mapping[str, bytes]:
    """Returns the charts as PNG files, by name."""
    subjects = list(zip(draft.titles, draft.content.subjects, strict=True))[:_MOST_PANELS]
    several = draft.is_comparison
    panels = {
        'learning_curves.png': charts.curve_panels(draft.content.curves)[:_MOST_PANELS],
        'confusion.png': [
            charts.confusion_panel(title if several else 'Confusion matrix', draft.grid(subject))
            for title, subject in subjects
        ],
        'per_class.png': [
            charts.class_panel(
                title if several else 'Accuracy by class',
                subject.statistics,
                [draft.name(each.index) for each in subject.statistics.classes],
            )
            for title, subject in subjects
        ],
        'reliability.png': [
            charts.reliability_panel(title if several else 'Reliability', subject.statistics)
            for title, subject in subjects
        ],
    }
    return {name: charts.to_png(each) for name, each in panels.items() if each}
