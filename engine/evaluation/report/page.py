"""Writes a report: a self-contained page, with charts and tables as files beside it.

write_report('/tmp/report', content)      # report.html, *.png, *.csv
"""

import base64
import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf

from engine.evaluation.report import charts
from engine.evaluation.report.class_sections import confused_pairs, confusion_matrix, per_class
from engine.evaluation.report.content import Content
from engine.evaluation.report.csv_files import csv_tables
from engine.evaluation.report.draft import Draft, section
from engine.evaluation.report.headline import headline
from engine.evaluation.report.markup import Element, element, raw, shorten, to_html
from engine.evaluation.report.picture_sections import first_layer, galleries, preparations
from engine.evaluation.report.sections import calibration, environment, learning_curves, recipe
from support.atomic import atomic_file, flush_to_disk
from support.errors import InputError, first_line, io_errors

_PAGE = 'report.html'
_SECTIONS = (
    *(headline, learning_curves, confusion_matrix, confused_pairs, per_class, galleries, calibration, first_layer),
    *(preparations, recipe, environment),
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
    draft = Draft(content)
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


def page(draft: Draft, files: Sequence[str] = ()) -> Element:
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
    classes = len(draft.content.label_names) or len(draft.classes)
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
            element('p', f'{_counted(examples, "example")}, {_counted(classes, "class")}', class_='note'),
        ),
        element('nav', element('ul', links), aria_label='Sections'),
        element('main', made, _files(files), id='main', tabindex='-1'),
        raw('script', script),
    )
    return element('html', head, body, lang='en')


def _counted(count: int, what: str) -> str:
    return f'{count:,} {what}' + ('' if count == 1 else 'es' if what.endswith('s') else 's')


def _files(names: Sequence[str]) -> Element:
    links = [element('li', element('a', name, href=name)) for name in sorted(names)]
    return section('files', 'Files beside this page', element('ul', links, class_='files'))


def _pngs(draft: Draft) -> Mapping[str, bytes]:
    """Returns the charts as PNG files, by name."""
    matrices = zip(draft.titled('Confusion matrix'), draft.grids, strict=True)
    panels = {
        'learning_curves.png': draft.curve_panels,
        'confusion.png': [charts.confusion_panel(title, grid) for (title, _), grid in matrices],
        'per_class.png': draft.class_panels,
        'reliability.png': draft.reliability_panels,
    }
    return {name: charts.to_png(each) for name, each in panels.items() if each}
