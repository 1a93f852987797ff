"""Pictures embedded in a page as data URLs, within a limit on their total size.

pictures = Pictures(limit=3_000_000)
image = pictures.image(array, alt='cat.jpg')       # an `img` element, or None once the limit is reached
"""

import base64
import io

import numpy as np
from PIL import Image

from engine.evaluation.report.markup import Element, element

_SIDE = 192  # pixels; twice the size at which the page shows it, for sharp screens
_SMALL = 96  # pixels: up to here, lossless and shown enlarged
_QUALITY = 80


class Pictures:
    """Embeds pictures in a page. `left_out`: number of pictures beyond the limit."""

    def __init__(self, limit: int):
        """Takes the largest total size of the pictures, in bytes of HTML."""
        self._room = limit
        self.left_out = 0

    def image(self, array: np.ndarray, alt: str, class_: str | None = None) -> Element | None:
        """Returns an `img` element of a picture, uint8 [height, width, 3]; None if there is no more room."""
        picture = Image.fromarray(array)
        is_small = max(picture.size) <= _SMALL
        picture.thumbnail((_SIDE, _SIDE))
        url = data_url(picture, 'PNG' if is_small else 'JPEG', **({} if is_small else {'quality': _QUALITY}))
        if len(url) > self._room:
            self.left_out += 1
            return None
        self._room -= len(url)
        classes = ' '.join(filter(None, (class_, 'pixels' if is_small else None))) or None
        size = {'width': picture.width, 'height': picture.height}
        return element('img', src=url, alt=alt, class_=classes, decoding='async', **size)


def data_url(picture: Image.Image, kind: str, **options: int) -> str:
    """Returns a picture as a data URL; `kind` is Pillow's name of the format."""
    stream = io.BytesIO()
    picture.save(stream, kind, optimize=True, **options)
    return f'data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}'
