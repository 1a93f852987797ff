"""The sections of a report's page on classes: confusion matrix, most confused pairs, accuracy by class.

confusion_matrix(draft), confused_pairs(draft), per_class(draft)      # None without classes
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse
from PIL import Image

from engine.evaluation.report import charts, confusion
from engine.evaluation.report.content import Subject
from engine.evaluation.report.draft import MOST_SUBJECTS, Draft, figure, head, link, percent, scroll, section
from engine.evaluation.report.markup import Child, Element, element, raw, to_json
from engine.evaluation.report.pictures import data_url
from engine.evaluation.statistics import ClassStatistics

MOST_ROWS = 1200  # of the table of classes
_MOST_NUMBERS = 20  # classes of a confusion matrix that is a table
_MOST_CELLS = 40_000  # of a map that tell their numbers
_COARSE = 250  # rows of a map at first sight
_PAIRS = 15


def confusion_matrix(draft: Draft) -> Element | None:
    """The confusion matrix: a table for few classes, a map for many."""
    if not len(draft.classes):
        return None
    parts: list[Child] = []
    for (title, _), grid in zip(draft.titled('the net'), draft.grids, strict=True):
        if draft.is_comparison:
            parts.append(element('h3', title))
        parts.append(_matrix(grid) if len(grid.names) <= _MOST_NUMBERS else _map(grid, title))
    more = len(draft.content.subjects) - MOST_SUBJECTS
    return section(
        'confusion',
        'Confusion matrix',
        element(
            'p',
            'A row is a label, a column a prediction. ',
            element('span', class_='key right', aria_hidden='true'),
            ' right, ',
            element('span', class_='key wrong', aria_hidden='true'),
            ' wrong; the stronger, the larger the share of the row’s examples. Classes that are confused stand '
            'together. All numbers are in ',
            link('confusion.csv'),
            f'; so are those of {more} more files.' if more > 0 else '.',
            class_='note',
        ),
        parts,
    )


def _matrix(grid: confusion.Grid) -> Element:
    counts = grid.counts.toarray()
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    strengths = confusion.strength(counts, totals, np.eye(len(counts), dtype=bool))
    rows = []
    for row, name in enumerate(grid.names):
        cells = []
        for column, other in enumerate(grid.names):
            count, strength = int(counts[row, column]), float(strengths[row, column])
            share = percent(count / totals[row, 0], 1)
            cells.append(
                element(
                    'td',
                    f'{count:,}' if count else '',
                    class_='right' if row == column else 'wrong',
                    style=f'--a:{strength:.2f}' if count else None,
                    title=f'{name} as {other}: {count:,} of {totals[row, 0]:,} ({share})' if count else None,
                )
            )
        rows.append(element('tr', _name_head(name), cells))
    heads = [element('th', element('span', element('bdi', name)), scope='col') for name in grid.names]
    corner = element('td', element('span', 'label ↓ prediction →'), class_='corner')
    table = element(
        'table',
        element('thead', element('tr', corner, heads)),
        element('tbody', rows),
        class_='matrix',
    )
    return scroll('confusion matrix', table)


def _name_head(name: str) -> Element:
    return element('th', element('bdi', name), scope='row')


def _map(grid: confusion.Grid, title: str) -> Element:
    """Returns a map of many classes: images to zoom into, and the counts for the script."""
    size = len(grid.names)
    blocks, block = confusion.coarse(grid.counts, _COARSE)
    cells = grid.counts.tocoo()
    largest = np.sort(np.argsort(-cells.data, kind='stable')[:_MOST_CELLS])
    data = {
        'names': grid.names,
        'group': grid.group,
        'block': block,
        'rows': cells.row[largest].tolist(),
        'columns': cells.col[largest].tolist(),
        'counts': cells.data[largest].tolist(),
        'totals': np.asarray(grid.counts.sum(axis=1)).ravel().tolist(),
    }
    what = f'Confusion matrix of {size} {"groups of classes" if grid.group > 1 else "classes"}'
    pictures = [
        element('img', src=_heat_url(counts), alt=what if kind == 'coarse' else '', class_=kind)
        for kind, counts in (('coarse', blocks), ('fine', grid.counts))
    ]
    buttons = [
        element('button', '−', type='button', data_zoom='0.5', aria_label='Zoom out'),
        element('button', '+', type='button', data_zoom='2', aria_label='Zoom in'),
    ]
    hint = 'Point at a cell, or move with the arrow keys, for its classes and numbers.'
    return element(
        'div',
        element('div', buttons, element('output', hint, aria_live='polite'), class_='tools'),
        element(
            'div',
            element('div', pictures, element('div', class_='cursor', hidden=''), class_='plane'),
            class_='scroll',
            tabindex='0',
            role='group',
            aria_label=f'{what} of {title}; arrow keys move between cells, plus and minus zoom',
        ),
        raw('script', to_json(data), type='application/json'),
        class_='map',
    )


def _heat_url(counts: scipy.sparse.csr_array) -> str:
    return data_url(Image.fromarray(confusion.heat(counts), 'RGBA'), 'PNG')


def confused_pairs(draft: Draft) -> Element | None:
    """The pairs of label and prediction with the most mistakes."""
    parts: list[Child] = []
    for title, subject in draft.titled('the net'):
        rows = _pair_rows(draft, subject)
        if not rows:
            continue
        heads = [('Label', None), ('Prediction', None), ('Examples', 'number'), ('Of the label’s', 'number')]
        heading = element('tr', [head(*each) for each in heads], head('The other way round', 'number'))
        table = element('table', element('thead', heading), element('tbody', rows))
        parts.append(element('h3', title) if draft.is_comparison else None)
        parts.append(scroll(f'most confused pairs of {title}', table))
    if not parts:
        return None
    note = element('p', 'All pairs are in ', link('confused_pairs.csv'), '.', class_='note')
    return section('pairs', 'Most confused pairs', parts, note)


def _pair_rows(draft: Draft, subject: Subject) -> list[Element]:
    counts = subject.statistics.confusion
    supports = {each.index: each.support for each in subject.statistics.classes}
    cells = counts.tocoo()
    wrong = np.flatnonzero(cells.row != cells.col)
    most = wrong[np.argsort(-cells.data[wrong], kind='stable')][:_PAIRS]
    return [
        element(
            'tr',
            element('td', element('bdi', draft.name(label)), class_='name'),
            element('td', element('bdi', draft.name(prediction)), class_='name'),
            element('td', f'{count:,}', class_='number'),
            element('td', percent(count / supports[label], 1), class_='number'),
            element('td', f'{counts[prediction, label]:,}', class_='number'),
        )
        for label, prediction, count in zip(
            *(each[most].tolist() for each in (cells.row, cells.col, cells.data)), strict=True
        )
    ]


def per_class(draft: Draft) -> Element | None:
    """A table of the classes, with bars, to sort and to filter."""
    by_class = [{each.index: each for each in subject.statistics.classes} for subject in draft.content.subjects]
    occurring = sorted(draft.classes.tolist())
    if not occurring:
        return None
    shown, note = occurring, _absent(draft, occurring)
    if len(occurring) > MOST_ROWS:
        mistakes = {i: sum(each[i].support - each[i].correct for each in by_class if i in each) for i in occurring}
        shown = sorted(sorted(occurring, key=lambda i: -mistakes[i])[:MOST_ROWS])
        note = f'The table has the {MOST_ROWS:,} classes with most mistakes of {len(occurring):,}. {note}'
    distribution = element('div', [figure(panel) for panel in draft.class_panels], class_='charts')
    return section(
        'classes',
        'Classes',
        distribution if len(occurring) > charts.MOST_BARS else None,
        element(
            'div',
            element('label', 'Filter by name ', element('input', type='search', autocomplete='off')),
            element('output', f'{len(shown):,} classes', aria_live='polite'),
            class_='tools filter',
        ),
        scroll('classes', _class_table(draft, shown, by_class), 'tall'),
        element(
            'p',
            f'{note} Bars are accuracies, thin lines their 95 % intervals (Wilson’s). All numbers are in '.lstrip(),
            link('per_class.csv'),
            '.',
            class_='note',
        ),
    )


def _class_table(draft: Draft, shown: Sequence[int], by_class: Sequence[Mapping[int, ClassStatistics]]) -> Element:
    """Returns the table, of columns by title: of two subjects with their difference, of one with precision and F1."""
    titles = draft.titles if draft.is_comparison else ['Accuracy']
    columns: list[tuple[str, list[Element]]] = [
        ('Class', [_number_cell(str(i), i) for i in shown]),
        ('Name', [element('th', element('bdi', draft.name(i)), scope='row', title=draft.name(i)) for i in shown]),
        *((title, [_accuracy_cell(each.get(i)) for i in shown]) for title, each in zip(titles, by_class, strict=True)),
    ]
    if len(by_class) == 2:
        columns.append(('Difference', _difference_cells(*([each.get(i) for i in shown] for each in by_class))))
    known = [next(each[i] for each in by_class if i in each) for i in shown]
    columns.append(('Examples', [_number_cell(f'{each.support:,}', each.support) for each in known]))
    if not draft.is_comparison:
        taken_for = _taken_for(draft)
        columns += [
            ('Precision', [_share_cell(each.precision if each.predicted else math.nan) for each in known]),
            ('F1', [_share_cell(each.f1) for each in known]),
            ('Most often taken for', [_taken_cell(draft, taken_for.get(i)) for i in shown]),
        ]
    heads = [
        element('th', element('button', title, type='button'), scope='col', class_=cells[0].get('class'))
        for title, cells in columns
    ]
    rows = [element('tr', cells) for cells in zip(*(cells for _, cells in columns), strict=True)]
    return element('table', element('thead', element('tr', heads)), element('tbody', rows), class_='sortable')


def _absent(draft: Draft, occurring: Sequence[int]) -> str:
    known = set(occurring)
    absent = [i for i in range(len(draft.content.label_names)) if i not in known]
    if not absent:
        return ''
    named = ', '.join(draft.name(i) for i in absent[:5]) + (', …' if len(absent) > 5 else '')
    return f'{len(absent):,} of {len(draft.content.label_names):,} classes are neither label nor prediction: {named}.'


def _taken_for(draft: Draft) -> Mapping[int, tuple[int, int]]:
    """Returns the most frequent wrong prediction of each class of the first subject, and its count."""
    cells = draft.first.statistics.confusion.tocoo()
    found: dict[int, tuple[int, int]] = {}
    for label, prediction, count in zip(cells.row.tolist(), cells.col.tolist(), cells.data.tolist(), strict=True):
        if label != prediction and count > found.get(label, (0, 0))[1]:
            found[label] = (prediction, count)
    return found


def _number_cell(text: str, value: float, bar: Element | None = None, title: str | None = None) -> Element:
    """Returns a cell that sorts by its value, last where it is not finite."""
    key = f'{value:.6g}' if math.isfinite(value) else ''
    return element('td', bar, text, class_='number', data_value=key, title=title)


def _share_cell(share: float) -> Element:
    return _number_cell(percent(share, 1), share)


def _taken_cell(draft: Draft, other: tuple[int, int] | None) -> Element:
    if other is None:
        return element('td', data_value=0)
    return element('td', element('bdi', draft.name(other[0])), f' {other[1]:,}×', data_value=other[1])


def _accuracy_cell(each: ClassStatistics | None) -> Element:
    if each is None or not each.support:
        return _share_cell(math.nan)
    low, high = each.interval
    style = f'--v:{each.accuracy:.4f};--l:{low:.4f};--h:{high:.4f}'
    bar = element('span', element('i'), class_='bar', style=style, aria_hidden='true')
    title = f'95 % interval: {percent(low, 1)} to {percent(high, 1)}'
    return _number_cell(percent(each.accuracy, 1), each.accuracy, bar, title)


def _difference_cells(
    first: Sequence[ClassStatistics | None], second: Sequence[ClassStatistics | None]
) -> list[Element]:
    """Returns how much more accurate the second is, with bars relative to the largest difference."""
    differences = [b.accuracy - a.accuracy if a and b else math.nan for a, b in zip(first, second, strict=True)]
    largest = max((abs(each) for each in differences if math.isfinite(each)), default=0) or 1
    cells = []
    for difference in differences:
        if not math.isfinite(difference):
            cells.append(_share_cell(math.nan))
            continue
        length = difference / largest / 2
        style = f'--l:{0.5 + min(length, 0):.4f};--v:{abs(length):.4f}'
        bar = element('span', class_=f'bar {"better" if difference > 0 else "worse"}', style=style, aria_hidden='true')
        text = f'{difference:+.1%}'.replace('%', '\u00a0%').replace('-', '−')
        cells.append(_number_cell(text, difference, bar))
    return cells
