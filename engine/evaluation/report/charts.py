"""Charts of a report, drawn once by matplotlib and used twice: as SVG in the page's colours, and as PNG files.

panel = Panel('Loss', functools.partial(draw_curves, curves=curves), summary='from 2.30 to 0.02')
to_svg(panel)                 # an element whose colours are the page's, light or dark
to_png([panel, another])      # side by side
"""

import dataclasses
import functools
import io
import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib import font_manager, ticker
from matplotlib.figure import Figure, FigureBase

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
_SETTINGS = {
    'axes.edgecolor': _COLORS['rule'],
    'axes.labelcolor': _COLORS['muted'],
    'axes.labelsize': 10,
    'axes.spines.right': False,
    'axes.spines.top': False,
    'axes.titlecolor': _COLORS['ink'],
    'axes.titlesize': 11,
    'axes.titlelocation': 'left',
    'font.family': 'DejaVu Sans',
    'font.size': 10,
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
_SIZE = (5.0, 3.4)  # inches; 360 units wide in SVG, which a phone shows as they are
_DPI = 144
_MOST_POINTS = 500  # of a curve
_MOST_BARS = 40  # classes; above, a histogram
_MOST_NUMBERS, _MOST_NAMES = 20, 60  # classes of a confusion matrix with numbers, with names
_XLINK = '{http://www.w3.org/1999/xlink}'


@dataclasses.dataclass(frozen=True)
class Panel:
    """A chart.

    Attributes:
        title: Its title.
        draw: Draws it into a figure or a part of one.
        summary: What it shows, in words, for those who cannot see it.
        size: Width and height, in inches.
    """

    title: str
    draw: Callable[[FigureBase], None]
    summary: str = ''
    size: tuple[float, float] = _SIZE


def to_svg(panel: Panel) -> Element:
    """Returns a chart as an `svg` element without its title, which the page shows as text."""
    stream = io.StringIO()
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(panel.size, layout='constrained')
        panel.draw(figure)
        figure.savefig(stream, format='svg', transparent=True, metadata={'Date': None})
    text = stream.getvalue()
    for name, color in _COLORS.items():
        text = text.replace(color, f'var(--{name})')
    svg = ElementTree.fromstring(text)
    for parent in svg.iter():
        parent.tag = parent.tag.rpartition('}')[2]
        if parent.tag == 'g':
            parent.attrib.pop('id', None)  # equal in all charts, and nothing refers to it
        if reference := parent.attrib.pop(f'{_XLINK}href', None):
            parent.set('href', reference)
        parent.tail = None
    svg.remove(svg.find('metadata'))  # type: ignore[arg-type]
    for name in ('width', 'height', 'version'):
        svg.attrib.pop(name)
    svg.attrib |= {'role': 'img', 'class': 'chart', 'aria-label': f'{panel.title}: {panel.summary}'}
    return svg


def to_png(panels: Sequence[Panel], columns: int = 3) -> bytes:
    """Returns charts as one PNG, in rows of at most `columns`."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width, height = np.max([panel.size for panel in panels], axis=0)
    stream = io.BytesIO()
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure((columns * width, rows * (height + 0.3)), layout='constrained', facecolor='white')
        for part, panel in zip(figure.subfigures(rows, columns, squeeze=False).flat, panels, strict=False):
            part.suptitle(printable(panel.title, 50), fontsize=12)
            panel.draw(part)
        figure.savefig(stream, format='png', dpi=_DPI)
    return stream.getvalue()


def printable(text: str, limit: int, otherwise: str = '') -> str:
    """Returns text that the charts' font can draw, shortened; or `otherwise`, or text with question marks."""
    shown, letters = shorten(text, limit), _letters()
    if letters.issuperset(map(ord, shown)):
        return shown
    return otherwise or ''.join(c if ord(c) in letters else '?' for c in shown)


@functools.cache
def _letters() -> frozenset[int]:
    """Returns the letters that matplotlib's own font draws as they should be: those from left to right."""
    font = font_manager.get_font(font_manager.findfont('DejaVu Sans'))
    return frozenset(code for code in font.get_charmap() if not 0x590 <= code < 0x900)


def curve_panels(curves: Sequence[Curve]) -> list[Panel]:
    """Returns a panel for each chart of learning curves."""
    charts: dict[str, list[Curve]] = {}
    for curve in curves:
        charts.setdefault(curve.chart, []).append(curve)
    return [
        Panel(title, functools.partial(_draw_curves, curves=of_chart), '; '.join(map(_summary, of_chart)))
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


def _draw_curves(figure: FigureBase, curves: Sequence[Curve]) -> None:
    axes = figure.subplots()
    for curve, color in zip(curves, itertools.cycle(_SERIES), strict=False):
        steps, values = _thinned(curve)
        alone = len(values) == 1
        axes.plot(steps, values, color=color, linewidth=1.6, marker='o' if alone else None, label=curve.name)
    axes.set_xlabel('step')
    axes.set_ylabel(printable(curves[0].chart, 40))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=''))
    axes.grid(axis='y', color=_COLORS['rule'], linewidth=0.6)
    if len(curves) > 1:
        names = [printable(curve.name, 24) for curve in curves]
        axes.legend(axes.lines, names, loc='lower left', bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0, fontsize=9)


def _thinned(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Returns at most `_MOST_POINTS` points, means of neighbours; what is not finite leaves a gap."""
    values = np.where(np.isfinite(curve.values), curve.values, np.nan).astype(np.float64)
    size = -(-len(values) // _MOST_POINTS)
    if size <= 1:
        return curve.steps, values
    starts = np.arange(0, len(values), size)
    counts = np.diff([*starts, len(values)])
    return np.add.reduceat(curve.steps, starts) / counts, np.add.reduceat(values, starts) / counts


def reliability_panel(title: str, statistics: Statistics) -> Panel:
    """Returns a reliability diagram: accuracy by confidence, and how many examples have which confidence."""
    ece = statistics.values['ece']
    draw = functools.partial(_draw_reliability, statistics=statistics)
    return Panel(title, draw, f'expected calibration error {ece:.4f}', (_SIZE[0], 4.6))


def _draw_reliability(figure: FigureBase, statistics: Statistics) -> None:
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    bins = [each for each in statistics.calibration if each.count]
    axes.plot([0, 1], [0, 1], color=_COLORS['muted'], linewidth=1, linestyle=(0, (4, 3)))
    axes.text(0.03, 0.09, 'perfectly calibrated', color=_COLORS['muted'], fontsize=9, rotation=0)
    accuracies, confidences = np.array([each.accuracy for each in bins]), np.array([each.confidence for each in bins])
    bounds = np.array([wilson(round(each.accuracy * each.count), each.count) for each in bins]).reshape(-1, 2)
    axes.vlines(confidences, accuracies, confidences, color=_COLORS['orange'], linewidth=4, alpha=0.35)
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
    """Returns accuracy by class: bars with intervals, worst first, or above 40 classes how many have which accuracy.

    Args:
        title: Of the panel.
        statistics: With the classes.
        names: Of the classes of `statistics.classes`, in their order.
    """
    known = [(each, name) for each, name in zip(statistics.classes, names, strict=True) if each.support]
    known.sort(key=lambda pair: pair[0].accuracy)
    summary = f'{len(known)} classes, from {known[0][0].accuracy:.1%} to {known[-1][0].accuracy:.1%}' if known else ''
    if not 1 <= len(known) <= _MOST_BARS:
        values = [each.accuracy for each, _ in known]
        return Panel(title, functools.partial(_draw_histogram, values=values), summary)
    height = max(1.0 + 0.24 * len(known), 2.0)
    return Panel(title, functools.partial(_draw_bars, known=known), summary, (_SIZE[0], height))


def _draw_bars(figure: FigureBase, known: Sequence[tuple]) -> None:
    axes = figure.subplots()
    places = np.arange(len(known))[::-1]
    axes.barh(places, [each.accuracy for each, _ in known], 0.7, color=_COLORS['blue'], alpha=0.6)
    bounds = np.array([each.interval for each, _ in known])
    axes.hlines(places, *bounds.T, color=_COLORS['ink'], linewidth=1.2)
    axes.set_yticks(places, [printable(name, 24, f'class {each.index}') for each, name in known])
    axes.tick_params(axis='y', length=0)
    axes.set(xlim=(0, 1), xlabel='accuracy, with 95 % interval')
    axes.xaxis.set_major_formatter(ticker.PercentFormatter(1))


def _draw_histogram(figure: FigureBase, values: Sequence[float]) -> None:
    axes = figure.subplots()
    axes.hist(values, np.linspace(0, 1, 21), color=_COLORS['blue'], alpha=0.7, edgecolor='white', linewidth=0.5)
    axes.set(xlim=(0, 1), xlabel='accuracy of a class', ylabel='classes')
    axes.xaxis.set_major_formatter(ticker.PercentFormatter(1))
    axes.yaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))


def confusion_panel(title: str, grid: confusion.Grid) -> Panel:
    """Returns a confusion matrix; with names up to 60 classes, with numbers up to 20."""
    size = max(4.5, min(0.42 * len(grid.names) + 1.5, 9.0))
    return Panel(title, functools.partial(_draw_confusion, grid=grid), size=(size, size))


def _draw_confusion(figure: FigureBase, grid: confusion.Grid) -> None:
    axes = figure.subplots()
    axes.spines[:].set_visible(True)
    size = len(grid.names)
    axes.set(xlabel='prediction', ylabel='label')
    if not size:
        axes.set(xticks=[], yticks=[])
        return
    picture = confusion.heat(grid.counts)
    axes.imshow(picture, interpolation='none' if size < 600 else 'antialiased')
    if size > _MOST_NAMES:
        return
    names = [printable(name, 16, str(place)) for place, name in enumerate(grid.names)]
    axes.set_xticks(range(size), names, rotation=90)
    axes.set_yticks(range(size), names)
    axes.tick_params(length=0, labelsize=9 if size <= _MOST_NUMBERS else 6)
    if size <= _MOST_NUMBERS:
        for row, column in np.argwhere(picture[..., 3] > 0).tolist():
            color = 'white' if picture[row, column, 3] > 140 else _COLORS['ink']
            text = str(grid.counts[row, column])
            axes.text(column, row, text, ha='center', va='center', fontsize=8, color=color)
