"""Charts of a report, drawn once by matplotlib and used twice: as SVG in the page's colours, and as PNG files.

panels = curve_panels(curves)
to_svg(panels[0])       # an element whose colours are the page's, light or dark
to_png(panels)          # side by side
"""

import functools
import io
import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager, ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from engine.evaluation.report import confusion
from engine.evaluation.report.content import Curve
from engine.evaluation.report.markup import Element, shorten
from engine.evaluation.statistics import Statistics, wilson

# Okabe and Ito's colours, which colour-blind people tell apart. In SVG each becomes the page's variable of its name.
_COLORS = {
    'ink': '#1d2126',
    'muted': '#5c636d',
    'rule': '#d8dbe0',
    'blue': '#0072b2',
    'orange': '#d55e00',
    'green': '#009e73',
    'pink': '#cc79a7',
    'yellow': '#e69f00',
    'sky': '#56b4e9',
}
_SERIES = tuple(_COLORS[name] for name in ('blue', 'orange', 'green', 'pink', 'yellow', 'sky'))
_SETTINGS: dict[Any, Any] = {
    'axes.edgecolor': _COLORS['rule'],
    'axes.labelcolor': _COLORS['muted'],
    'axes.labelsize': 11,
    'axes.spines.right': False,
    'axes.spines.top': False,
    'font.family': 'DejaVu Sans',
    'font.size': 10.5,
    'legend.frameon': False,
    'legend.labelcolor': _COLORS['ink'],
    'svg.fonttype': 'none',  # the page's font
    'svg.hashsalt': 'report',  # equal reports are equal files
    'text.color': _COLORS['ink'],
    'text.parse_math': False,  # names may have dollars
    'xtick.color': _COLORS['rule'],
    'xtick.labelcolor': _COLORS['muted'],
    'ytick.color': _COLORS['rule'],
    'ytick.labelcolor': _COLORS['muted'],
}
_WIDTH, _HEIGHT = 4.4, 3.1  # inches; 317 units wide in SVG, about as many pixels as a phone has for it
_TITLE = 0.35  # inches at the top of a picture; SVG is cut there, as the page shows the title as text
_LETTER = 0.085  # inches, mean width
_DPI = 144
_MOST_POINTS = 500  # of a curve
MOST_BARS = 40  # classes; above, a histogram
_MOST_NUMBERS, _MOST_NAMES = 20, 60  # classes of a confusion matrix with numbers, with names
_XLINK = '{http://www.w3.org/1999/xlink}'


class Panel:
    """A chart.

    Attributes:
        title: Its title.
        summary: Alternative text for screen readers.
    """

    def __init__(self, title: str, draw: Callable[[Figure], None], summary: str = '', size: tuple = (_WIDTH, _HEIGHT)):
        """Takes what draws it into a figure, and its width and height in inches."""
        self.title, self.summary = title, summary
        self._draw, self._size = draw, size

    @functools.cached_property
    def figure(self) -> Figure:
        """The figure, drawn."""
        with matplotlib.rc_context(_SETTINGS):
            figure = Figure(self._size)
            self._draw(figure)
        return figure


def to_svg(panel: Panel) -> Element:
    """Returns a chart as an `svg` element without its title."""
    stream = io.StringIO()
    with matplotlib.rc_context(_SETTINGS):
        panel.figure.savefig(stream, format='svg', transparent=True, metadata={'Date': None})
    text = stream.getvalue()
    for name, color in _COLORS.items():
        text = text.replace(color, f'var(--{name})')
    svg = ElementTree.fromstring(text)
    for each in svg.iter():
        each.tag = each.tag.rpartition('}')[2]
        if each.tag == 'g':
            each.attrib.pop('id', None)  # equal in all charts, and nothing refers to it
        if reference := each.attrib.pop(f'{_XLINK}href', None):
            each.set('href', reference)
        each.tail = None
    svg.remove(svg.find('metadata'))  # type: ignore[arg-type]
    for name in ('width', 'height', 'version'):
        svg.attrib.pop(name)
    width, height = 72 * panel.figure.get_size_inches()
    cut = 72 * _TITLE
    view = f'0 {cut:.0f} {width:.0f} {height - cut:.0f}'
    svg.attrib |= {'role': 'img', 'class': 'chart', 'viewBox': view, 'aria-label': f'{panel.title}: {panel.summary}'}
    return svg


def to_png(panels: Sequence[Panel], columns: int = 3) -> bytes:
    """Returns charts as one PNG, in rows of at most `columns`."""
    pictures = [_picture(panel) for panel in panels]
    width, height = (max(picture.size[axis] for picture in pictures) for axis in (0, 1))
    columns = min(columns, len(pictures))
    page = Image.new('RGB', (columns * width, -(-len(pictures) // columns) * height), 'white')
    for place, picture in enumerate(pictures):
        page.paste(picture, (place % columns * width, place // columns * height))
    stream = io.BytesIO()
    page.save(stream, 'PNG', dpi=(_DPI, _DPI))
    return stream.getvalue()


def _picture(panel: Panel) -> Image.Image:
    with matplotlib.rc_context(_SETTINGS):
        title = panel.figure.text(0.02, 0.995, printable(panel.title, 50), va='top', fontsize=12)
        panel.figure.set_dpi(_DPI)
        canvas = FigureCanvasAgg(panel.figure)
        canvas.draw()
        title.remove()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert('RGB')


def printable(text: str, limit: int, otherwise: str = '') -> str:
    """Returns shortened text that the charts' font can draw; otherwise `otherwise`, or text with question marks."""
    shown, letters = shorten(text, limit), _letters()
    if letters.issuperset(map(ord, shown)):
        return shown
    return otherwise or ''.join(c if ord(c) in letters else '?' for c in shown)


@functools.cache
def _letters() -> frozenset[int]:
    """Returns the letters that matplotlib's own font draws correctly: left-to-right ones."""
    font = font_manager.get_font(font_manager.findfont('DejaVu Sans'))
    return frozenset(code for code in font.get_charmap() if not 0x590 <= code < 0x900)


def curve_panels(curves: Sequence[Curve]) -> list[Panel]:
    """Returns a panel for each chart of learning curves."""
    charts: dict[str, list[Curve]] = {}
    for curve in curves:
        charts.setdefault(curve.chart, []).append(curve)
    return [
        Panel(
            shorten(title[:1].upper() + title[1:], 60),
            functools.partial(_draw_curves, curves=of_chart),
            '; '.join(map(_summary, of_chart)),
        )
        for title, of_chart in charts.items()
    ]


def _summary(curve: Curve) -> str:
    known = np.flatnonzero(np.isfinite(curve.values))
    if not len(known):
        return f'{curve.name} has no finite value'
    first, last = known[0], known[-1]
    return (
        f'{curve.name} from {curve.values[first]:.4g} at step {curve.steps[first]} '
        f'to {curve.values[last]:.4g} at step {curve.steps[last]}'
    )


def _subplots(figure: Figure, left: float = 0.75, bottom: float = 0.55, top: float = 0.1, **options: Any) -> Any:
    """Returns axes within margins in inches: matplotlib's own layout takes as long as all of the drawing."""
    width, height = figure.get_size_inches()
    margins = {
        'left': left / width,
        'right': 1 - 0.25 / width,
        'bottom': bottom / height,
        'top': 1 - (_TITLE + top) / height,
    }
    return figure.subplots(**options, gridspec_kw=margins)


def _draw_curves(figure: Figure, curves: Sequence[Curve]) -> None:
    several = len(curves) > 1
    axes = _subplots(figure, top=0.3 if several else 0.1)
    for curve, color in zip(curves, itertools.cycle(_SERIES), strict=False):
        steps, values = _thinned(curve)
        alone = len(values) == 1
        axes.plot(steps, values, color=color, linewidth=1.6, marker='o' if alone else None, label=curve.name)
    axes.set_xlabel('step')
    axes.set_ylabel(printable(curves[0].chart, 40))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=''))
    axes.grid(axis='y', color=_COLORS['rule'], linewidth=0.6)
    if several:
        names = [printable(curve.name, 24) for curve in curves]
        axes.legend(axes.lines, names, loc='lower left', bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0, fontsize=10.5)


def _thinned(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Returns at most `_MOST_POINTS` points, means of neighbours; values that are not finite leave gaps."""
    values = np.where(np.isfinite(curve.values), curve.values, np.nan).astype(np.float64)
    size = -(-len(values) // _MOST_POINTS)
    if size <= 1:
        return curve.steps, values
    starts = np.arange(0, len(values), size)
    counts = np.diff([*starts, len(values)])
    return np.add.reduceat(curve.steps, starts) / counts, np.add.reduceat(values, starts) / counts


def reliability_panel(title: str, statistics: Statistics) -> Panel:
    """Returns a reliability diagram: accuracy by confidence, and a histogram of the confidence."""
    ece = statistics.values['ece']
    draw = functools.partial(_draw_reliability, statistics=statistics)
    return Panel(title, draw, f'expected calibration error {ece:.4f}', (_WIDTH, 4.4))


def _draw_reliability(figure: Figure, statistics: Statistics) -> None:
    axes, below = _subplots(figure, nrows=2, sharex=True, height_ratios=(3.4, 1))
    bins = [each for each in statistics.calibration if each.count]
    axes.plot([0, 1], [0, 1], color=_COLORS['muted'], linewidth=1, linestyle=(0, (4, 3)))
    axes.text(0.98, 0.04, 'dashed: perfectly calibrated', color=_COLORS['muted'], fontsize=10, ha='right')
    accuracies, confidences = np.array([each.accuracy for each in bins]), np.array([each.confidence for each in bins])
    bounds = np.array([wilson(round(each.accuracy * each.count), each.count) for each in bins]).reshape(-1, 2)
    axes.vlines(confidences, accuracies, confidences, color=_COLORS['orange'], linewidth=4, alpha=0.6)
    axes.vlines(confidences, *bounds.T, color=_COLORS['blue'], linewidth=1.2)
    axes.plot(confidences, accuracies, 'o', color=_COLORS['blue'], markersize=5)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel='accuracy')
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1))
    axes.grid(axis='y', color=_COLORS['rule'], linewidth=0.6)
    total = max(sum(each.count for each in bins), 1)
    lows, shares = [each.low for each in bins], [each.count / total for each in bins]
    below.bar(lows, shares, [each.high - each.low for each in bins], align='edge', color=_COLORS['muted'], alpha=0.55)
    below.set(xlabel='confidence', ylabel='examples')
    below.xaxis.set_major_formatter(ticker.PercentFormatter(1))
    below.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    below.yaxis.set_major_locator(ticker.MaxNLocator(2))


def class_panel(title: str, statistics: Statistics, names: Sequence[str]) -> Panel:
    """Returns accuracy by class: bars with intervals, worst first; above 40 classes, a histogram.

    Args:
        title: Of the panel.
        statistics: With the classes.
        names: Of the classes of `statistics.classes`, in their order.
    """
    known = [(each, name) for each, name in zip(statistics.classes, names, strict=True) if each.support]
    known.sort(key=lambda pair: pair[0].accuracy)
    summary = f'{len(known)} classes, from {known[0][0].accuracy:.1%} to {known[-1][0].accuracy:.1%}' if known else ''
    if not 1 <= len(known) <= MOST_BARS:
        values = [each.accuracy for each, _ in known]
        return Panel(title, functools.partial(_draw_histogram, values=values), summary)
    return Panel(title, functools.partial(_draw_bars, known=known), summary, (6.0, 1.2 + 0.24 * len(known)))


def _draw_bars(figure: Figure, known: Sequence[tuple]) -> None:
    names = [printable(name, 24, f'class {each.index}') for each, name in known]
    axes = _subplots(figure, left=0.25 + _LETTER * max(map(len, names)))
    places = np.arange(len(known))[::-1]
    axes.barh(places, [each.accuracy for each, _ in known], 0.7, color=_COLORS['blue'], alpha=0.6)
    bounds = np.array([each.interval for each, _ in known])
    axes.hlines(places, *bounds.T, color=_COLORS['ink'], linewidth=1.2)
    axes.set_yticks(places, names)
    axes.tick_params(axis='y', length=0)
    axes.set(xlim=(0, 1), xlabel='accuracy, with 95 % interval')
    axes.xaxis.set_major_formatter(ticker.PercentFormatter(1))


def _draw_histogram(figure: Figure, values: Sequence[float]) -> None:
    axes = _subplots(figure)
    axes.hist(
        values, np.linspace(0, 1, 21).tolist(), color=_COLORS['blue'], alpha=0.7, edgecolor='white', linewidth=0.5
    )
    axes.set(xlim=(0, 1), xlabel='accuracy of a class', ylabel='classes')
    axes.xaxis.set_major_formatter(ticker.PercentFormatter(1))
    axes.yaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))


def confusion_panel(title: str, grid: confusion.Grid) -> Panel:
    """Returns a confusion matrix; with names up to 60 classes, with numbers up to 20."""
    size = len(grid.names)
    shown = zip(grid.numbers, grid.names, strict=True) if size <= _MOST_NAMES else ()
    names = [printable(name, 16, f'class {number}') for number, name in shown]
    margin = 0.5 + _LETTER * max(map(len, names), default=0)
    side = min(max(0.42 * size, 3.0), 7.0)
    draw = functools.partial(_draw_confusion, grid=grid, names=names, margin=margin)
    return Panel(title, draw, size=(side + margin + 0.15, side + margin + _TITLE + 0.1))


def _draw_confusion(figure: Figure, grid: confusion.Grid, names: Sequence[str], margin: float) -> None:
    axes: Axes = _subplots(figure, left=margin, bottom=margin)
    axes.spines[:].set_visible(True)
    axes.set(xlabel='prediction', ylabel='label', xticks=[], yticks=[])
    if not grid.names:
        return
    picture = confusion.heat(grid.counts)
    axes.imshow(picture, interpolation='none' if len(grid.names) < 600 else 'antialiased')
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0, labelsize=10 if len(names) <= _MOST_NUMBERS else 6)
    if len(grid.names) <= _MOST_NUMBERS:
        for row, column in np.argwhere(picture[..., 3] > 0).tolist():
            color = 'white' if picture[row, column, 3] > 205 else _COLORS['ink']
            text = str(grid.counts[row, column])
            axes.text(column, row, text, ha='center', va='center', fontsize=8, color=color)
