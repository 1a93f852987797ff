"""Shared parts of the sections of a report's page: the content, derived values, small elements.

draft = Draft(content)
section('recipe', 'Recipe', facts_list(content.recipe))
"""

import functools
import math
from collections.abc import Mapping

import numpy as np
import scipy.sparse

from engine.evaluation.report import charts, confusion
from engine.evaluation.report.content import Content, Subject
from engine.evaluation.report.markup import Child, Element, element, shorten
from engine.evaluation.statistics import Interval
from support.tables import shortest_names

MOST_SUBJECTS = 6  # of several, those that are drawn
NAME, ID, VALUE = 60, 100, 400  # characters shown
_MOST_CHARTS = 24
_MOST_FACTS = 400
_AS_NUMBERS = ('cross_entropy', 'ece')


class Draft:
    """A report's content, with values that several sections need."""

    def __init__(self, content: Content):
        self.content = content
        self.titles = [shorten(path, NAME) for path in shortest_names([each.path for each in content.subjects])]
        self.first = content.subjects[0]
        self.is_comparison = len(content.subjects) > 1

    def name(self, index: int) -> str:
        """Returns the name of a class, or its number; shortened."""
        return shorten(self.content.name_of(index), NAME) or f'class {index}'

    @functools.cached_property
    def classes(self) -> np.ndarray:
        """The classes that occur, ordered so that confused ones are neighbours."""
        occurring = sorted({each.index for subject in self.content.subjects for each in subject.statistics.classes})
        size = max(occurring, default=-1) + 1
        total = sum((_sized(each, size) for each in self.content.subjects), scipy.sparse.csr_array((size, size)))
        chosen = np.array(occurring, np.int64)
        return chosen[confusion.similarity_order(total[chosen][:, chosen].tocsr())] if size else chosen

    @functools.cached_property
    def grids(self) -> list[confusion.Grid]:
        """The confusion matrices of the first subjects."""
        return [self._grid(subject) for subject in self.content.subjects[:MOST_SUBJECTS]]

    def _grid(self, subject: Subject) -> confusion.Grid:
        counts = _sized(subject, int(self.classes.max(initial=-1)) + 1)
        return confusion.make_grid(counts, self.classes, self.name)

    @functools.cached_property
    def curve_panels(self) -> list[charts.Panel]:
        """Learning curves."""
        return charts.curve_panels(self.content.curves)[:_MOST_CHARTS]

    @functools.cached_property
    def class_panels(self) -> list[charts.Panel]:
        """Accuracy by class, of the first subjects."""
        return [
            charts.class_panel(title, each.statistics, [self.name(one.index) for one in each.statistics.classes])
            for title, each in self.titled('Accuracy by class')
        ]

    @functools.cached_property
    def reliability_panels(self) -> list[charts.Panel]:
        """Reliability diagrams of the first subjects."""
        return [charts.reliability_panel(title, each.statistics) for title, each in self.titled('Reliability')]

    def titled(self, otherwise: str) -> list[tuple[str, Subject]]:
        """Returns the first subjects, each with a title; a single subject has its own title."""
        titles = self.titles if self.is_comparison else [otherwise]
        return list(zip(titles, self.content.subjects, strict=True))[:MOST_SUBJECTS]


def _sized(subject: Subject, size: int) -> scipy.sparse.csr_array:
    """Returns a subject's confusion matrix, enlarged to the classes of all subjects."""
    cells = subject.statistics.confusion.tocoo()
    return scipy.sparse.coo_array((cells.data, (cells.row, cells.col)), shape=(size, size)).tocsr()


def section(id_: str, title: str, *children: Child) -> Element:
    """Returns a section with a heading, as a target of the page's navigation."""
    heading = element('h2', title, id=f'{id_}-title')
    return element('section', heading, *children, id=id_, aria_labelledby=f'{id_}-title')


def facts_list(facts: Mapping[str, str]) -> Element | None:
    """Returns names and values as a description list."""
    pairs = [
        element('div', element('dt', shorten(str(name), NAME)), element('dd', shorten(str(value), VALUE)))
        for name, value in list(facts.items())[:_MOST_FACTS]
    ]
    return element('dl', pairs, class_='facts') if pairs else None


def head(text: str, class_: str | None = None, scope: str = 'col') -> Element:
    return element('th', text, scope=scope, class_=class_)


def link(name: str) -> Element:
    return element('a', name, href=name)


def scroll(what: str, table: Element, class_: str = '') -> Element:
    """Returns a part of the page that scrolls on its own if it is too wide, also by keyboard."""
    return element('div', table, class_=f'scroll {class_}'.strip(), tabindex='0', role='region', aria_label=what)


def figure(panel: charts.Panel) -> Element:
    return element('figure', element('figcaption', panel.title), charts.to_svg(panel))


def value_text(name: str, value: float) -> str:
    if name in _AS_NUMBERS:
        return number(value)
    return percent(value)


def number(value: float) -> str:
    return f'{value:.4f}' if math.isfinite(value) else '∞' if value == math.inf else '–'


def percent(share: float, digits: int = 2) -> str:
    """Returns a share as text; a dash if it is undefined."""
    return f'{share:.{digits}%}'.replace('%', '\u00a0%') if math.isfinite(share) else '–'


def interval_text(name: str, interval: Interval | None) -> str:
    if interval is None or math.isnan(interval[0]):
        return ''
    low, high = (value_text(name, each) for each in interval)
    return f'{low} – {high}'.replace('\u00a0%', '', 1)
