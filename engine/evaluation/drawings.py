"""Images of an evaluation for TensorBoard, of bounded size: confusion matrix and galleries of examples.

image = draw_confusion(statistics.confusion, names)
image = draw_gallery(gallery.pictures, names)
"""

import math
import os
import warnings
from collections.abc import Sequence

import matplotlib
import numpy as np
import scipy.sparse
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont, ImageOps

from engine.evaluation.report.charts import printable
from engine.evaluation.report.confusion import coarse
from engine.evaluation.report.content import Picture

_DPI = 100
_WITH_NUMBERS, _WITH_NAMES = 20, 64  # the largest matrices whose cells hold numbers, whose axes hold names
_MOST_CELLS = 200  # along a side; with more classes, a cell holds several, as one of a pixel is not seen
_SIDE = 9.0  # inches, of a large matrix
_PAIRS = 30
_SQRT = 0.5  # the power of shares which gives the colour: a confusion of 1 % is seen beside a diagonal of 100 %

_TILE, _COLUMNS = 144, 6  # pixels, tiles in a row
_MARGIN, _LINE = 6, 16
_FONT = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
_RIGHT, _WRONG = (0, 90, 140), (190, 70, 0)  # which colour-blind people tell apart
_LETTERS = 24  # of a name


def draw_confusion(confusion: scipy.sparse.csr_array, names: Sequence[str]) -> np.ndarray:
    """Draws a confusion matrix, normalised by row.

    Up to 20 classes, cells show percentages; up to 64, classes have names. Larger matrices are heat maps beside a list
    of the most confused pairs; above 200 classes, a cell holds several.

    Args:
        confusion: int64 [classes, classes], numbers of examples by label (row) and prediction (column).
        names: Of the data set's classes; a net may have more, which are numbered.

    Returns:
        uint8 [height, width, 3], of at most 1,600 x 1,050 pixels.
    """
    size = max(confusion.shape[0], len(names), 1)
    titles = [class_title(names, index) for index in range(size)]
    has_pairs = size > _WITH_NUMBERS
    side = _SIDE if has_pairs else 3.0 + 0.33 * size
    figure = Figure(figsize=(side + (6.5 if has_pairs else 0.5), side), dpi=_DPI, layout='compressed')
    axes = figure.subplots(1, 2, squeeze=False, width_ratios=(2.3, 1))[0] if has_pairs else [figure.subplots()]
    shares, cell = _row_shares(confusion, size)
    edges = (-0.5, cell * len(shares) - 0.5)
    picture = axes[0].imshow(
        shares, cmap='Blues', norm=PowerNorm(_SQRT, 0, 1), interpolation='nearest', extent=(*edges, *edges[::-1])
    )
    bar = figure.colorbar(picture, ax=axes[0], fraction=0.04, pad=0.02, ticks=(0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1))
    bar.ax.set_yticklabels(['0', '1 %', '5 %', '10 %', '25 %', '50 %', '75 %', '100 %'])
    of_cells = f', {cell} classes in a cell' if cell > 1 else ''
    axes[0].set_title(f'Predictions of each label, % of its examples{of_cells}', fontsize=11)
    axes[0].set_xlabel('prediction')
    axes[0].set_ylabel('label')
    if size <= _WITH_NAMES:
        letters = 8.0 if size <= 32 else 6.0
        axes[0].set_xticks(range(size), titles, rotation=90, fontsize=letters, parse_math=False)
        axes[0].set_yticks(range(size), titles, fontsize=letters, parse_math=False)
    if size <= _WITH_NUMBERS:
        _write_shares(axes[0], shares)
    if has_pairs:
        _list_pairs(axes[1], confusion, titles)
    return _drawn(figure)


def class_title(names: Sequence[str], index: int) -> str:
    """Returns a class's name, shortened, or its number if the font lacks letters of it."""
    name = names[index] if 0 <= index < len(names) else ''
    return printable(name, _LETTERS, str(index)) or str(index)


def _row_shares(confusion: scipy.sparse.csr_array, size: int) -> tuple[np.ndarray, int]:
    """Returns float64 [cells, cells], NaN in rows without examples, and the number of classes along a cell's side."""
    whole = confusion.copy()
    whole.resize(size, size)
    cells, block = coarse(whole, _MOST_CELLS)
    counts = cells.toarray().astype(np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0), block


def _write_shares(axes: Axes, shares: np.ndarray) -> None:
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:
            percent = f'{100 * share:.0f}' if share >= 0.01 else '<1'
            colour = 'white' if share > 0.4 else 'black'
            axes.text(column, row, percent, ha='center', va='center', color=colour, fontsize=8)


def _list_pairs(axes: Axes, confusion: scipy.sparse.csr_array, titles: Sequence[str]) -> None:
    """Lists the pairs of label and prediction that were confused most often."""
    found, support = confusion.tocoo(), confusion.sum(axis=1)
    wrong = found.row != found.col
    rows, columns, counts = found.row[wrong], found.col[wrong], found.data[wrong]
    order = np.lexsort((columns, rows, -counts))[:_PAIRS]
    axes.set_axis_off()
    axes.set_title('Most confused: label → prediction', loc='left')
    for line, i in enumerate(order):
        height = 0.98 - line / (_PAIRS + 1)
        axes.text(0.0, height, f'{counts[i]}', ha='left', va='top', fontsize=9, transform=axes.transAxes)
        axes.text(
            *(0.11, height, f'({counts[i] / support[rows[i]]:.0%})'),
            ha='left', va='top', fontsize=9, color='gray', transform=axes.transAxes,
        )  # fmt: skip
        axes.text(
            *(0.27, height, f'{titles[rows[i]]} → {titles[columns[i]]}'),
            ha='left', va='top', fontsize=9, parse_math=False, transform=axes.transAxes,
        )  # fmt: skip


def _drawn(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # letters that the font lacks, and a layout without room
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_gallery(pictures: Sequence[Picture], names: Sequence[str]) -> np.ndarray:
    """Draws pictures in rows, each above its label and its prediction with probability.

    Args:
        pictures: At least one.
        names: Of the data set's classes.

    Returns:
        uint8 [height, width, 3], 156 x 194 pixels a picture.
    """
    width, height = _TILE + 2 * _MARGIN, _TILE + 3 * _MARGIN + 2 * _LINE
    columns = min(_COLUMNS, len(pictures))
    page = Image.new('RGB', (columns * width, math.ceil(len(pictures) / columns) * height), 'white')
    draw, font = ImageDraw.Draw(page), ImageFont.truetype(_FONT, 13)
    for i, picture in enumerate(pictures):
        left, top = i % columns * width + _MARGIN, i // columns * height + _MARGIN
        image = Image.fromarray(picture.image)
        # Enlarged pixels stay pixels.
        how = Image.Resampling.NEAREST if max(image.size) < _TILE else Image.Resampling.LANCZOS
        page.paste(ImageOps.pad(image, (_TILE, _TILE), how, color='white'), (left, top))
        is_right = picture.label == picture.prediction
        lines = (
            (class_title(names, picture.label), '', _RIGHT),
            (
                f'→ {class_title(names, picture.prediction)}',
                f' {picture.confidence:.0%}',
                _RIGHT if is_right else _WRONG,
            ),
        )
        for line, (text, end, colour) in enumerate(lines):
            place = (left, top + _TILE + 3 + line * _LINE)
            draw.text(place, _fitting(text, end, font), colour, font)
    return np.asarray(page)


def _fitting(text: str, end: str, font: ImageFont.FreeTypeFont) -> str:
    """Returns the text followed by `end`, shortened to the width of a tile."""
    if font.getlength(text + end) <= _TILE:
        return text + end
    while text and font.getlength(f'{text}…{end}') > _TILE:
        text = text[:-1]
    return f'{text}…{end}'
