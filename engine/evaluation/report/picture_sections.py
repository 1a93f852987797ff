"""The sections of a report's page with pictures: galleries, filters, training images.

galleries(draft), first_layer(draft), preparations(draft)       # None without pictures
"""

import math

from PIL import Image

from engine.evaluation.report.content import Picture
from engine.evaluation.report.draft import ID, NAME, Draft, percent, section
from engine.evaluation.report.markup import Child, Element, element, shorten
from engine.evaluation.report.pictures import Pictures, data_url

_FIRST_PICTURES, _MOST_PICTURES = 12, 24  # of a gallery: at first sight, and in all
_ROOM_OF_GALLERIES, _ROOM_OF_PREPARATIONS = 2_000_000, 700_000  # bytes


def galleries(draft: Draft) -> Element | None:
    """Pictures of mistakes and successes."""
    pictures = Pictures(_ROOM_OF_GALLERIES)
    parts: list[Child] = []
    for gallery in draft.content.galleries:
        if gallery.pictures:
            cards = [
                card for each in gallery.pictures[:_MOST_PICTURES] if (card := _card(draft, each, pictures)) is not None
            ]
            parts += [element('h3', shorten(gallery.title, NAME)), element('p', gallery.note, class_='note')]
            parts.append(element('ul', cards[:_FIRST_PICTURES], class_='gallery'))
            if more := cards[_FIRST_PICTURES:]:
                parts.append(_folded(f'{len(more)} more', element('ul', more, class_='gallery')))
    if not parts:
        return None
    left_out = pictures.left_out
    note = element('p', f'{left_out} more pictures are left out: the page is large enough.', class_='note')
    of = f' of {draft.titles[0]}' if draft.is_comparison else ''
    return section('galleries', f'Examples{of}', parts, note if left_out else None)


def _folded(summary: str, content: Element) -> Element:
    return element('details', element('summary', summary), content)


def _card(draft: Draft, picture: Picture, pictures: Pictures) -> Element | None:
    label, prediction = draft.name(picture.label), draft.name(picture.prediction)
    identity = shorten(picture.id, ID)
    image = pictures.image(picture.image, f'{identity}: {label}, predicted {prediction}')
    if image is None:
        return None
    explanation = None
    if picture.explanation is not None:
        explanation = pictures.image(picture.explanation, f'where the net looked in {identity}')
    is_right = picture.label == picture.prediction
    lines = [('label', label, picture.probability), ('predicted', prediction, picture.confidence)]
    if is_right:
        lines = [('right', label, picture.confidence)]
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
    note = 'Each tile is one filter, scaled by its largest weight; gray is 0.'
    return section('filters', 'First-layer filters', element('p', note, class_='note'), image)


def preparations(draft: Draft) -> Element | None:
    """Returns the section with training images before and after preprocessing; None without them."""
    pictures, rows = Pictures(_ROOM_OF_PREPARATIONS), []
    for each in draft.content.preparations[:8]:
        identity = shorten(each.id, ID)
        stored = pictures.image(each.image, f'{identity}, as stored', 'stored')
        drawn = [pictures.image(image, f'{identity}, as the net sees it') for image in each.prepared[:8]]
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
