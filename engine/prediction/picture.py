"""Draws predictions: the images as the net sees them, each above its most likely classes, beside what explains them.

picture = PredictionPicture(host_range=255)
picture.add(prediction, image)
picture.save('/tmp/seen.png')
"""

import math
import textwrap
import warnings
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datasets.files import shown
from engine.classifiers.explaining import overlay
from engine.prediction.predictor import Prediction
from support.atomic import atomic_file
from support.errors import InputError
from support.tables import shortest_names

MAX_IMAGES = 64
_COLUMNS = 8
_GUESSES = 3
_LETTERS = 34  # per line
_TILE = (2.4, 3.1)  # inches
_CAPTION = 0.35  # inches, above all tiles
_DPI = 120


class PredictionPicture:
    """Collects the first images and draws them in rows on one page."""

    def __init__(
        self,
        host_range: float,
        explain: Callable[[np.ndarray, int], np.ndarray] | None = None,
        explanation: str = '',
    ):
        """Starts a page.

        Args:
            host_range: Largest value of the images; the smallest is 0.
            explain: Maps an image and the index of a class to where its logit comes from, float32 [height, width] in
                [0, 1]; None draws the images alone.
            explanation: Name of the method, such as 'Grad-CAM of conv5'.
        """
        self._host_range, self._explain, self._explanation = host_range, explain, explanation
        self._tiles: list[tuple[Prediction, np.ndarray | None, np.ndarray | None]] = []

    def __len__(self) -> int:
        return len(self._tiles)

    def add(self, prediction: Prediction, image: np.ndarray | None) -> None:
        """Adds an image, float32 [height, width, channels], or None for an unusable one; ignores all after the 64th."""
        if len(self) == MAX_IMAGES:
            return
        heat = None
        if self._explain is not None and image is not None and prediction.top_k:
            heat = self._explain(image, prediction.top_k[0].index)
        self._tiles.append((prediction, image, heat))

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
        pictures = 1 if self._explain is None else 2  # of each tile
        columns = max(min(math.ceil(math.sqrt(len(self) / pictures)), _COLUMNS // pictures), 1)
        rows = max(math.ceil(len(self) / columns), 1)
        caption = 0.0 if self._explain is None else _CAPTION
        height = rows * _TILE[1] + caption
        figure = Figure(figsize=(columns * pictures * _TILE[0], height))
        grid = figure.subplots(rows, columns * pictures, squeeze=False, gridspec_kw={'hspace': 0.0, 'wspace': 0.1})
        figure.subplots_adjust(left=0.02, right=0.98, bottom=0.0, top=1.0 - caption / height)
        if self._explain is not None:
            text = f'As the net sees it, beside {self._explanation} for the most likely class: bright is most'
            figure.text(0.5, 1 - 0.5 * caption / height, text, ha='center', va='center', fontsize=8, parse_math=False)
        for axes in grid.flat[len(self) * pictures :]:
            axes.set_axis_off()
        titles = shortest_names([prediction.path for prediction, *_ in self._tiles])
        places = grid.reshape(-1, pictures)
        for axes, title, (prediction, image, heat) in zip(places, titles, self._tiles, strict=False):
            self._draw_image(axes[0], title, prediction, image)
            if self._explain is not None:
                self._draw_explanation(axes[1], prediction, image, heat)
        return figure

    def _draw_image(self, axes: Axes, title: str, prediction: Prediction, image: np.ndarray | None) -> None:
        _clear(axes)
        axes.set_title(_without_middle(shown(title)), fontsize=7, parse_math=False)
        if image is None:
            axes.imshow(np.full((2, 2, 3), 0.85), extent=(0, 1, 0, 1))
            error = textwrap.fill(prediction.error or '', 26)
            axes.text(0.5, 0.5, error, ha='center', va='center', fontsize=7, color='darkred', parse_math=False)
            return
        pixels = self._in_unit_range(image)
        axes.imshow(pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap='gray', vmin=0, vmax=1)
        lines = [f'{guess.probability:.3f}  {shown(guess.label)}' for guess in prediction.top_k[:_GUESSES]]
        axes.set_xlabel('\n'.join(map(_cut, lines)), fontsize=7, loc='left', parse_math=False)

    def _draw_explanation(
        self, axes: Axes, prediction: Prediction, image: np.ndarray | None, heat: np.ndarray | None
    ) -> None:
        if image is None or heat is None:
            axes.set_axis_off()
            return
        _clear(axes)
        axes.imshow(overlay(self._in_unit_range(image), heat))
        label = shown(prediction.top_k[0].label)
        line = f'for {label}' if heat.any() else f'nothing positive for {label}'
        axes.set_xlabel(_cut(line), fontsize=7, loc='left', parse_math=False)

    def _in_unit_range(self, image: np.ndarray) -> np.ndarray:
        return np.clip(image / self._host_range, 0, 1)


def _clear(axes: Axes) -> None:
    axes.set_anchor((0.5, 0.65))  # the lines under an image take more room than its name
    axes.set_xticks([])
    axes.set_yticks([])


def _cut(text: str) -> str:
    return text if len(text) <= _LETTERS else f'{text[: _LETTERS - 1]}…'


def _without_middle(text: str) -> str:
    """Shortens a name in the middle: its end, e.g. a number, is often the most informative part."""
    half = _LETTERS // 2
    return text if len(text) <= _LETTERS else f'{text[: half - 1]}…{text[-half:]}'
