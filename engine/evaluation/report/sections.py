"""The sections of a report's page, each from the content alone; None where there is nothing to show.

draft = Draft(content, Pictures(limit=3_000_000))
headline(draft), learning_curves(draft), ...
"""

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse
from PIL import Image

from engine.evaluation.report import charts, confusion
from engine.evaluation.report.content import Content, Picture, Subject
from engine.evaluation.report.markup import Child, Element, element, raw, shorten, to_json
from engine.evaluation.report.pictures import Pictures, data_url
from engine.evaluation.statistics import ClassStatistics, Interval
from support.tables import shortest_names

MOST_ROWS = 1200  # of the table of classes
_MOST_NUMBERS = 20  # classes of a confusion matrix that is a table
_MOST_CELLS = 40_000  # of a map that tell their numbers
_COARSE = 250  # rows of a map at first sight
_PAIRS = 20
_MOST_MATRICES = 4
_DIFFERENT_CLASSES = 10
_MOST_CHARTS = 24
_MOST_PICTURES = 24  # of a gallery
_MOST_FACTS = 400
_NAME, _ID, _VALUE = 60, 100, 400  # characters shown

_METRICS = {
    'accuracy': 'Accuracy',
    'mean_class_accuracy': 'Mean class accuracy',
    'cross_entropy': 'Cross-entropy (nats)',
    'ece': 'Expected calibration error',
}
_LOWER_IS_BETTER = ('cross_entropy', 'ece')
_AS_NUMBERS = ('cross_entropy', 'ece')


class Draft:
    """A report's content, with what several sections need."""

    def __init__(self, content: Content, pictures: Pictures):
        """Takes the content, and the room for pictures."""
        self.content = content
        self.pictures = pictures
        self.titles = [shorten(path, _NAME) for path in shortest_names([each.path for each in content.subjects])]
        self.first = content.subjects[0]
        self.is_comparison = len(content.subjects) > 1

    def name(self, index: int) -> str:
        """Returns the name of a class, or its number; shortened."""
        return shorten(self.content.name_of(index), _NAME) or f'class {index}'

    @functools.cached_property
    def classes(self) -> np.ndarray:
        """The classes that occur, in an order in which those stand together that are confused."""
        occurring = sorted({each.index for subject in self.content.subjects for each in subject.statistics.classes})
        size = max(occurring, default=-1) + 1
        total = sum((_sized(each, size) for each in self.content.subjects), scipy.sparse.csr_array((size, size)))
        chosen = np.array(occurring, np.int64)
        return chosen[confusion.similarity_order(total[chosen][:, chosen].tocsr())] if size else chosen

    def grid(self, subject: Subject) -> confusion.Grid:
        """Returns a subject's confusion matrix."""
        counts = _sized(subject, int(self.classes.max(initial=-1)) + 1)[self.classes][:, self.classes]
        return confusion.make_grid(counts, np.arange(len(self.classes)), [self.name(int(i)) for i in self.classes])


def _sized(subject: Subject, size: int) -> scipy.sparse.csr_array:
    """Returns a subject's confusion matrix with as many classes as all have together."""
    cells = subject.statistics.confusion.tocoo()
    return scipy.sparse.coo_array((cells.data, (cells.row, cells.col)), shape=(size, size)).tocsr()


def section(id_: str, title: str, *children: Child) -> Element:
    """Returns a section under a heading, to which the page's navigation can lead."""
    heading = element('h2', title, id=f'{id_}-title')
    return element('section', heading, *children, id=id_, aria_labelledby=f'{id_}-title')


def headline(draft: Draft) -> Element:
    """Values with intervals: of one subject the most important ones large, and all in a table."""
    statistics = draft.first.statistics
    names = list(dict.fromkeys(name for each in draft.content.subjects for name in each.statistics.values))
    return section(
        'headline',
        'Side by side' if draft.is_comparison else 'Results',
        None if draft.is_comparison else _cards(draft.first),
        _warnings(draft),
        _facts_of_subjects(draft),
        _differences(draft),
        _scroll(
            'all values',
            element(
                'table',
                element(
                    'caption',
                    'Values with 95 % intervals: Wilson’s of Accuracy and Recall@k, the bootstrap’s of the others',
                ),
                element('thead', element('tr', _head('Metric'), [_head(title, 'number') for title in _columns(draft)])),
                element('tbody', [_value_row(draft, name) for name in names]),
                class_='values',
            ),
        )
        if statistics.num_examples
        else element('p', 'The split has no examples, so no value is defined.', class_='note'),
    )


def _columns(draft: Draft) -> list[str]:
    return draft.titles if draft.is_comparison else ['Value']


def _cards(subject: Subject) -> Element:
    values = subject.statistics.values
    recalls = [name for name in values if name.startswith('recall_at_') and name != 'recall_at_1'][:2]
    names = ['accuracy', *recalls, 'mean_class_accuracy', 'ece']
    return element(
        'dl',
        [
            element(
                'div',
                element('dt', _title(name)),
                element('dd', _shown(name, values.get(name, math.nan)), class_='large'),
                element('dd', _interval(name, subject.statistics.intervals.get(name)) or 'no interval', class_='note'),
            )
            for name in names
        ],
        class_='cards',
    )


def _warnings(draft: Draft) -> list[Element]:
    lines = []
    for title, subject in zip(draft.titles, draft.content.subjects, strict=True):
        of = f' by {title}' if draft.is_comparison else ''
        statistics, labels = subject.statistics, subject.outcomes.labels
        if statistics.num_not_finite:
            lines.append(
                f'{statistics.num_not_finite:,} examples have scores{of} that are not finite: they count as wrong in '
                'Recall@k, and cross-entropy and the calibration error are undefined.'
            )
        if foreign := int((labels < 0).sum()):
            lines.append(f'{foreign:,} examples have a label that is no class of the net{of}; they count as wrong.')
    return [element('p', line, class_='warning') for line in lines]


def _facts_of_subjects(draft: Draft) -> Child:
    if not draft.is_comparison:
        facts = {'file': draft.first.path, **draft.first.facts} if draft.first.path else draft.first.facts
        return facts_list(facts)
    names = list(dict.fromkeys(name for each in draft.content.subjects for name in each.facts))
    rows = [
        element(
            'tr',
            _head(title, scope='row'),
            element('td', shorten(subject.path, _VALUE), class_='path'),
            [element('td', shorten(subject.facts.get(name, ''), _NAME)) for name in names],
        )
        for title, subject in zip(draft.titles, draft.content.subjects, strict=True)
    ]
    heading = element('tr', _head(''), _head('File'), [_head(shorten(name, _NAME)) for name in names])
    return _scroll('files', element('table', element('thead', heading), element('tbody', rows)))


def _value_row(draft: Draft, name: str) -> Element:
    values = [each.statistics.values.get(name, math.nan) for each in draft.content.subjects]
    known = [value for value in values if math.isfinite(value)]
    best = (min if name in _LOWER_IS_BETTER else max)(known) if known and draft.is_comparison else None
    cells = [
        element(
            'td',
            element('strong' if value == best else 'span', _shown(name, value)),
            element('span', _interval(name, subject.statistics.intervals.get(name)), class_='interval'),
            class_='number',
        )
        for value, subject in zip(values, draft.content.subjects, strict=True)
    ]
    return element('tr', _head(_title(name), scope='row'), cells)


def _title(name: str) -> str:
    if name.startswith('recall_at_'):
        return f'Recall@{name.removeprefix("recall_at_")}'
    if name in _METRICS:
        return _METRICS[name]
    kind, _, how = name.partition('_')
    return f'{"F1" if kind == "f1" else kind.capitalize()}, {how}'


def _shown(name: str, value: float) -> str:
    if name in _AS_NUMBERS:
        return _number(value)
    return percent(value)


def _number(value: float) -> str:
    return f'{value:.4f}' if math.isfinite(value) else '∞' if value == math.inf else '–'


def percent(share: float, digits: int = 2) -> str:
    """Returns a share as text; a dash if it is undefined."""
    return f'{share:.{digits}%}'.replace('%', '\u00a0%') if math.isfinite(share) else '–'


def _interval(name: str, interval: Interval | None) -> str:
    if interval is None or math.isnan(interval[0]):
        return ''
    low, high = (_shown(name, each) for each in interval)
    return f'{low} – {high}'.replace('\u00a0%', '', 1)


def _differences(draft: Draft) -> Child:
    if not draft.content.differences:
        return None
    titles = dict(zip([each.path for each in draft.content.subjects], draft.titles, strict=True))
    rows = [
        element(
            'tr',
            element('td', titles.get(each.first, each.first)),
            element('td', titles.get(each.second, each.second)),
            element('td', f'{each.only_first:,}', class_='number'),
            element('td', f'{each.only_second:,}', class_='number'),
            element('td', f'{each.p_value:.3g}', class_='number'),
        )
        for each in draft.content.differences[:MOST_ROWS]
    ]
    heads = [('First', None), ('Second', None), ('Only first right', 'number'), ('Only second right', 'number')]
    return [
        element('h3', 'Do they differ? McNemar’s test'),
        element(
            'p',
            'The exact two-sided test of the examples that only one of two has right: a small p says that a difference '
            'this large would be rare between equally good classifiers. The examples are in ',
            _link('differences.csv'),
            '.',
            class_='note',
        ),
        _scroll(
            'McNemar’s test',
            element(
                'table',
                element('thead', element('tr', [_head(*head) for head in heads], _head('p', 'number'))),
                element('tbody', rows),
            ),
        ),
    ]


def learning_curves(draft: Draft) -> Element | None:
    """A chart for each scalar of the run."""
    panels = charts.curve_panels(draft.content.curves)
    if not panels:
        return None
    left_out = f'{len(panels) - _MOST_CHARTS} more are in ' if len(panels) > _MOST_CHARTS else 'All points are in '
    return section(
        'curves',
        'Learning curves',
        element('div', [_figure(panel) for panel in panels[:_MOST_CHARTS]], class_='charts'),
        element('p', left_out, _link('learning_curves.csv'), '.', class_='note'),
    )


def _figure(panel: charts.Panel) -> Element:
    return element('figure', element('figcaption', shorten(panel.title, _NAME)), charts.to_svg(panel))


def confusion_matrix(draft: Draft) -> Element | None:
    """The confusion matrix: a table of few classes, a map of many."""
    if not len(draft.classes):
        return None
    parts: list[Child] = []
    for title, subject in list(zip(draft.titles, draft.content.subjects, strict=True))[:_MOST_MATRICES]:
        if draft.is_comparison:
            parts.append(element('h3', title))
        grid = draft.grid(subject)
        parts.append(_matrix(grid) if len(grid.names) <= _MOST_NUMBERS else _map(grid, title))
    more = len(draft.content.subjects) - _MOST_MATRICES
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
            _link('confusion.csv'),
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
            classes = ['right' if row == column else 'wrong', *(['strong'] if strength > 0.55 else [])]
            share = percent(count / totals[row, 0], 1)
            cells.append(
                element(
                    'td',
                    f'{count:,}' if count else '',
                    class_=' '.join(classes),
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
    return _scroll('confusion matrix', table)


def _name_head(name: str) -> Element:
    return element('th', element('bdi', name), scope='row')


def _map(grid: confusion.Grid, title: str) -> Element:
    """Returns a map of many classes: pictures to zoom into, and the numbers for the script."""
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
    for title, subject in list(zip(draft.titles, draft.content.subjects, strict=True))[:_MOST_MATRICES]:
        rows = _pair_rows(draft, subject)
        if not rows:
            continue
        heads = [('Label', None), ('Prediction', None), ('Examples', 'number'), ('Of the label’s', 'number')]
        heading = element('tr', [_head(*head) for head in heads], _head('The other way round', 'number'))
        table = element('table', element('thead', heading), element('tbody', rows))
        parts.append(element('h3', title) if draft.is_comparison else None)
        parts.append(_scroll(f'most confused pairs of {title}', table))
    if not parts:
        return None
    note = element('p', 'All pairs are in ', _link('confused_pairs.csv'), '.', class_='note')
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
            element('td', element('bdi', draft.name(label))),
            element('td', element('bdi', draft.name(prediction))),
            element('td', f'{count:,}', class_='number'),
            element('td', percent(count / supports[label], 1), class_='number'),
            element('td', f'{counts[prediction, label]:,}', class_='number'),
        )
        for label, prediction, count in zip(
            *(each[most].tolist() for each in (cells.row, cells.col, cells.data)), strict=True
        )
    ]


def per_class(draft: Draft) -> Element | None:
    """A table of the classes, to sort and to filter, with bars."""
    subjects = draft.content.subjects
    by_class = [{each.index: each for each in subject.statistics.classes} for subject in subjects]
    occurring = sorted(draft.classes.tolist())
    if not occurring:
        return None
    shown = occurring
    if len(occurring) > MOST_ROWS:
        mistakes = {i: sum(each[i].support - each[i].correct for each in by_class if i in each) for i in occurring}
        shown = sorted(sorted(occurring, key=lambda i: -mistakes[i])[:MOST_ROWS])
    heads = [('Class', 'number'), ('Name', None), ('Examples', 'number')]
    heads += [(title if draft.is_comparison else 'Accuracy', 'number') for title in draft.titles]
    heads += [('Difference', 'number')] if len(subjects) == 2 else []
    if not draft.is_comparison:
        heads += [('Precision', 'number'), ('F1', 'number'), ('Most often taken for', None)]
    taken_for = _taken_for(draft)
    rows = [_class_row(draft, index, [each.get(index) for each in by_class], taken_for) for index in shown]
    sortable = [element('th', element('button', title, type='button'), scope='col', class_=c) for title, c in heads]
    table = element('table', element('thead', element('tr', sortable)), element('tbody', rows), class_='sortable')
    histogram = len(occurring) > 40
    panels = [
        charts.class_panel(title, subject.statistics, [draft.name(each.index) for each in subject.statistics.classes])
        for title, subject in zip(draft.titles, subjects, strict=True)
    ]
    note = _absent(draft, occurring)
    if len(shown) < len(occurring):
        note = f'The table has the {MOST_ROWS:,} classes with most mistakes of {len(occurring):,}. {note}'
    return section(
        'classes',
        'Classes',
        element('div', [_figure(panel) for panel in panels[:_MOST_CHARTS]], class_='charts') if histogram else None,
        element(
            'div',
            element(
                'label', 'Filter by name ', element('input', type='search', autocomplete='off', spellcheck='false')
            ),
            element('output', f'{len(shown):,} classes', aria_live='polite'),
            class_='tools filter',
        ),
        _scroll('classes', table, 'tall'),
        element(
            'p',
            f'{note} Bars and whiskers: accuracy with Wilson’s 95 % interval. All are in '.strip(),
            _link('per_class.csv'),
            '.',
            class_='note',
        ),
    )


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


def _class_row(
    draft: Draft, index: int, of_subjects: Sequence[ClassStatistics | None], taken_for: Mapping[int, tuple[int, int]]
) -> Element:
    known = next(each for each in of_subjects if each is not None)
    accuracies = [each.accuracy if each else math.nan for each in of_subjects]
    cells = [
        element('td', str(index), class_='number'),
        element('th', element('bdi', draft.name(index)), scope='row'),
        element('td', f'{known.support:,}', class_='number', data_value=known.support),
        [_accuracy_cell(each) for each in of_subjects],
    ]
    if len(of_subjects) == 2:
        difference = accuracies[1] - accuracies[0]
        text = f'{difference:+.1%}'.replace('%', '\u00a0%').replace('-', '−') if math.isfinite(difference) else '–'
        cells.append(element('td', text, class_='number', data_value=_sort_key(difference)))
    if not draft.is_comparison:
        for value in (known.precision if known.predicted else math.nan, known.f1):
            cells.append(element('td', percent(value, 1), class_='number', data_value=_sort_key(value)))
        other = taken_for.get(index)
        text = [element('bdi', draft.name(other[0])), f' {other[1]:,}×'] if other else None
        cells.append(element('td', text, data_value=other[1] if other else 0))
    return element('tr', cells)


def _accuracy_cell(each: ClassStatistics | None) -> Element:
    if each is None or not each.support:
        return element('td', '–', class_='number accuracy', data_value='')
    low, high = each.interval
    style = f'--v:{each.accuracy:.4f};--l:{low:.4f};--h:{high:.4f}'
    bar = element('span', element('i'), class_='bar', style=style, aria_hidden='true')
    text = percent(each.accuracy, 1)
    title = f'95 % interval: {percent(low, 1)} to {percent(high, 1)}'
    return element('td', bar, text, class_='number accuracy', data_value=f'{each.accuracy:.6f}', title=title)


def _sort_key(value: float) -> str:
    return f'{value:.6f}' if math.isfinite(value) else ''


def galleries(draft: Draft) -> Element | None:
    """Pictures of mistakes and successes."""
    parts: list[Child] = []
    for gallery in draft.content.galleries:
        if gallery.pictures:
            cards = [card for each in gallery.pictures[:_MOST_PICTURES] if (card := _card(draft, each)) is not None]
            parts += [element('h3', shorten(gallery.title, _NAME)), element('p', gallery.note, class_='note')]
            parts.append(element('ul', cards, class_='gallery'))
    if not parts:
        return None
    left_out = draft.pictures.left_out
    note = element('p', f'{left_out} more pictures are left out: the page is large enough.', class_='note')
    of = f' of {draft.titles[0]}' if draft.is_comparison else ''
    return section('galleries', f'Examples{of}', parts, note if left_out else None)


def _card(draft: Draft, picture: Picture) -> Element | None:
    label, prediction = draft.name(picture.label), draft.name(picture.prediction)
    identity = shorten(picture.id, _ID)
    image = draft.pictures.image(picture.image, f'{identity}: {label}, predicted {prediction}')
    if image is None:
        return None
    explanation = None
    if picture.explanation is not None:
        explanation = draft.pictures.image(picture.explanation, f'where the net looked in {identity}')
    is_right = picture.label == picture.prediction
    lines = [('label', label, picture.probability), ('predicted', prediction, picture.confidence)]
    if is_right:
        lines = [('label and prediction', label, picture.confidence)]
    return element(
        'li',
        element('div', image, explanation, class_='images'),
        [
            element(
                'p',
                element('span', kind, class_='kind'),
                element('bdi', name, class_='name', title=name),
                element('span', percent(share, 1), class_='share') if math.isfinite(share) else None,
                class_=('wrong' if kind == 'predicted' else None),
            )
            for kind, name, share in lines
        ],
        element('p', identity, class_='id', title=identity),
        class_='double' if explanation is not None else None,
    )


def calibration(draft: Draft) -> Element | None:
    """Reliability diagrams with the expected calibration error."""
    if not any(bin_.count for each in draft.content.subjects for bin_ in each.statistics.calibration):
        return None
    figures = []
    for title, subject in list(zip(draft.titles, draft.content.subjects, strict=True))[:_MOST_CHARTS]:
        statistics = subject.statistics
        interval = _interval('ece', statistics.intervals.get('ece'))
        caption = f'ECE {_number(statistics.values["ece"])}' + (f' ({interval})' if interval else '')
        panel = charts.reliability_panel(title, statistics)
        named = [element('b', title), ' · '] if draft.is_comparison else None
        figures.append(element('figure', element('figcaption', named, caption), charts.to_svg(panel)))
    return section(
        'calibration',
        'Calibration',
        element(
            'p',
            'Of the examples to which the net gives a confidence of 80 %, 80 % should be right. Dots: accuracy of the '
            'examples in a bin of confidence, with Wilson’s 95 % interval; bands: the gap, which the expected '
            'calibration error (ECE) averages over the examples. Numbers are in ',
            _link('calibration.csv'),
            '.',
            class_='note',
        ),
        element('div', figures, class_='charts'),
    )


def first_layer(draft: Draft) -> Element | None:
    """The filters of the first layer."""
    if draft.content.filters is None:
        return None
    picture = Image.fromarray(draft.content.filters)
    picture.thumbnail((640, 640))
    is_small = max(picture.size) < 320
    image = element(
        'img',
        src=data_url(picture, 'PNG'),
        alt='Filters of the first layer, as a grid of small pictures',
        class_='filters pixels' if is_small else 'filters',
        width=picture.width,
        height=picture.height,
    )
    note = 'Each tile is one filter, scaled to its own range. Noise without structure suggests too short a training.'
    return section('filters', 'First-layer filters', element('p', note, class_='note'), image)


def preparations(draft: Draft) -> Element | None:
    """What preprocessing does to training images."""
    rows = []
    for each in draft.content.preparations[:8]:
        identity = shorten(each.id, _ID)
        stored = draft.pictures.image(each.image, f'{identity}, as stored', 'stored')
        drawn = [draft.pictures.image(image, f'{identity}, as the net sees it') for image in each.prepared[:8]]
        if stored is not None:
            rows.append(
                element('li', element('div', stored, drawn, class_='strip'), element('p', identity, class_='id'))
            )
    if not rows:
        return None
    note = 'Training images: first as stored, then as the net sees them, drawn anew each time.'
    return section(
        'preprocessing', 'Preprocessing', element('p', note, class_='note'), element('ul', rows, class_='strips')
    )


def recipe(draft: Draft) -> Element | None:
    """Options of the run."""
    facts = draft.content.recipe
    return section('recipe', 'Recipe', facts_list(facts)) if facts else None


def environment(draft: Draft) -> Element | None:
    """Versions and machine."""
    facts = draft.content.environment
    return section('environment', 'Environment', facts_list(facts)) if facts else None


def facts_list(facts: Mapping[str, str]) -> Element | None:
    """Returns names and values as a list of descriptions."""
    pairs = [
        element('div', element('dt', shorten(str(name), _NAME)), element('dd', shorten(str(value), _VALUE)))
        for name, value in list(facts.items())[:_MOST_FACTS]
    ]
    return element('dl', pairs, class_='facts') if pairs else None


def _head(text: str, class_: str | None = None, scope: str = 'col') -> Element:
    return element('th', text, scope=scope, class_=class_)


def _link(name: str) -> Element:
    return element('a', name, href=name)


def _scroll(what: str, table: Element, class_: str = '') -> Element:
    """Returns a part of the page that scrolls by itself if it is too wide, by keyboard too."""
    return element('div', table, class_=f'scroll {class_}'.strip(), tabindex='0', role='region', aria_label=what)
