"""Draws predictions: the images as the net sees them, each above its most likely classes.

picture = PredictionPicture(host_range=255)
picture.add(prediction, image)
picture.save('/tmp/seen.png')
"""

import math
import textwrap
import warnings

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datasets.files import shown
from engine.prediction.predictor import Prediction
from support.atomic import atomic_file
from support.errors import InputError
from support.tables import shortest_names

MAX_IMAGES = 64
_COLUMNS = 8
_GUESSES = 3
_LETTERS = 34  # per line
_TILE = (2.4, 3.1)  # inches
_DPI = 120


class PredictionPicture:
    """Collects the first images and draws them in rows on one page."""

    def __init__(self, host_range: float):
        """Starts a page of images whose values are in [0, `host_range`]."""
        self._host_range = host_range
        self._tiles: list[tuple[Prediction, np.ndarray | None]] = []

    def __len__(self) -> int:
        return len(self._tiles)

    def add(self, prediction: Prediction, image: np.ndarray | None) -> None:
        """Adds an image, float32 [height, width, channels], or None for an unusable one; ignores all after the 64th."""
        if len(self) < MAX_IMAGES:
            self._tiles.append((prediction, image))

    def save(self, path: str) -> None:
        """Writes the page atomically, in the format of the path's ending.

        Raises:
            InputError: the file cannot be written; an existing one is unharmed.
        """
        try:
            with atomic_file(path, shared=True) as part, warnings.catch_warnings():
                warnings.simplefilter('ignore')  # letters that the font lacks
                self._draw().savefig(part, dpi=_DPI, format=path.rpartition('.')[2].lower())
        except OSError as error:
            raise InputError(f'--visualize={path}: cannot be written: {error.strerror}') from error

    def _draw(self) -> Figure:
        columns = max(min(math.ceil(math.sqrt(len(self))), _COLUMNS), 1)
        rows = max(math.ceil(len(self) / columns), 1)
        figure = Figure(figsize=(columns * _TILE[0], rows * _TILE[1]))
        grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={'hspace': 0.0, 'wspace': 0.1})
        figure.subplots_adjust(left=0.02, right=0.98, bottom=0.0, top=1.0)
        for axes in grid.flat[len(self) :]:
            axes.set_axis_off()
        titles = shortest_names([prediction.path for prediction, _ in self._tiles])
        for axes, title, (prediction, image) in zip(grid.flat, titles, self._tiles, strict=False):
            self._draw_tile(axes, title, prediction, image)
        return figure

    def _draw_tile(self, axes: Axes, title: str, prediction: Prediction, image: np.ndarray | None) -> None:
        axes.set_anchor((0.5, 0.65))  # the lines under an image take more room than its name
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(_without_middle(shown(title)), fontsize=7, parse_math=False)
        if image is None:
            axes.imshow(np.full((2, 2, 3), 0.85), extent=(0, 1, 0, 1))
            error = textwrap.fill(prediction.error or '', 26)
            axes.text(0.5, 0.5, error, ha='center', va='center', fontsize=7, color='darkred', parse_math=False)
            return
        pixels = np.clip(image / self._host_range, 0, 1)
        axes.imshow(pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap='gray', vmin=0, vmax=1)
        lines = [f'{guess.probability:.3f}  {shown(guess.label)}' for guess in prediction.top_k[:_GUESSES]]
        axes.set_xlabel('\n'.join(map(_cut, lines)), fontsize=7, loc='left', parse_math=False)


def _cut(text: str) -> str:
    return text if len(text) <= _LETTERS else f'{text[: _LETTERS - 1]}…'


def _without_middle(text: str) -> str:
    """Shortens a name in the middle: its end, e.g. a number, is often the most informative part."""
    half = _LETTERS // 2
    return text if len(text) <= _LETTERS else f'{text[: half - 1]}…{text[-half:]}'
