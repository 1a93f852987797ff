"""The first section of a report's page: values with intervals, of several subjects side by side.

headline(draft)
"""

import math

from engine.evaluation.report.content import Subject
from engine.evaluation.report.draft import (
    NAME,
    VALUE,
    Draft,
    facts_list,
    head,
    interval_text,
    link,
    scroll,
    section,
    value_text,
)
from engine.evaluation.report.markup import Child, Element, element, shorten

_METRICS = {
    'accuracy': 'Accuracy',
    'mean_class_accuracy': 'Mean class accuracy',
    'cross_entropy': 'Cross-entropy (nats)',
    'ece': 'Expected calibration error',
}
_LOWER_IS_BETTER = ('cross_entropy', 'ece')
_AVERAGES = ('_macro', '_micro', '_weighted')
_MOST_DIFFERENCES = 200


def headline(draft: Draft) -> Element:
    """Metrics with intervals: for one subject, the main ones in large type; all in a table."""
    return section(
        'headline',
        'Side by side' if draft.is_comparison else 'Results',
        None if draft.is_comparison else _cards(draft.first),
        _warnings(draft),
        _facts_of_subjects(draft),
        _value_tables(draft),
        _differences(draft),
    )


def _cards(subject: Subject) -> Element:
    values, intervals = subject.statistics.values, subject.statistics.intervals
    recalls = [name for name in values if name.startswith('recall_at_') and name != 'recall_at_1'][:2]
    names = ['accuracy', *recalls, 'mean_class_accuracy', 'ece']
    return element(
        'dl',
        [
            element(
                'div',
                element('dt', _title(name)),
                element('dd', value_text(name, values.get(name, math.nan)), class_='large'),
                element('dd', interval_text(name, intervals.get(name)) or 'no interval', class_='note'),
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
            head(title, scope='row'),
            element('td', shorten(subject.path, VALUE), class_='path'),
            [element('td', shorten(subject.facts.get(name, ''), NAME)) for name in names],
        )
        for title, subject in zip(draft.titles, draft.content.subjects, strict=True)
    ]
    heading = element('tr', head(''), head('File'), [head(shorten(name, NAME)) for name in names])
    return scroll('files', element('table', element('thead', heading), element('tbody', rows)))


def _value_tables(draft: Draft) -> Child:
    names = list(dict.fromkeys(name for each in draft.content.subjects for name in each.statistics.values))
    if not draft.first.statistics.num_examples:
        return element('p', 'The split has no examples, so no value is defined.', class_='note')
    averages = [name for name in names if name.endswith(_AVERAGES)]
    heads = draft.titles if draft.is_comparison else ['Value, 95 % interval']
    tables = [
        element(
            'table',
            element('caption', caption),
            element('thead', element('tr', head('Metric'), [head(title, 'number') for title in heads])),
            element('tbody', [_value_row(draft, name) for name in of_table]),
        )
        for caption, of_table in (
            ('All values', [name for name in names if name not in averages]),
            ('Averages over classes', averages),
        )
    ]
    note = (
        'Ranges are 95 % intervals: Wilson’s of Accuracy and Recall@k, the bootstrap’s of the others. Macro averages '
        'weigh classes alike, weighted ones by their examples; micro averages count over all examples.'
    )
    return [
        element('div', [scroll(table.findtext('caption') or '', table) for table in tables], class_='tables'),
        element('p', note, class_='note'),
    ]


def _value_row(draft: Draft, name: str) -> Element:
    values = [each.statistics.values.get(name, math.nan) for each in draft.content.subjects]
    known = [value for value in values if math.isfinite(value)]
    best = (min if name in _LOWER_IS_BETTER else max)(known) if known and draft.is_comparison else None
    cells = [
        element(
            'td',
            element('strong' if value == best else 'span', value_text(name, value)),
            element('span', interval_text(name, subject.statistics.intervals.get(name)), class_='interval'),
            class_='number',
        )
        for value, subject in zip(values, draft.content.subjects, strict=True)
    ]
    return element('tr', head(_title(name), scope='row'), cells)


def _title(name: str) -> str:
    if name.startswith('recall_at_'):
        return f'Recall@{name.removeprefix("recall_at_")}'
    if name in _METRICS:
        return _METRICS[name]
    kind, _, how = name.partition('_')
    return f'{"F1" if kind == "f1" else kind.capitalize()}, {how}'


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
        for each in draft.content.differences[:_MOST_DIFFERENCES]
    ]
    heads = [('First', None), ('Second', None), ('Only first right', 'number'), ('Only second right', 'number')]
    return [
        element('h3', 'Do they differ? McNemar’s test'),
        element(
            'p',
            'The exact two-sided test of the examples that only one of two has right: a small p says that a difference '
            'this large would be rare between equally good classifiers. The examples are in ',
            link('differences.csv'),
            '.',
            class_='note',
        ),
        scroll(
            'McNemar’s test',
            element(
                'table',
                element('thead', element('tr', [head(*each) for each in heads], head('p', 'number'))),
                element('tbody', rows),
            ),
        ),
    ]
