"""HTML from a tree of elements; all text is escaped when the tree is written.

page = element('p', 'labelled ', element('b', name), class_='note')
to_html(page)
"""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from typing import Any

Element = ElementTree.Element
Child = str | Element | Iterable[Any] | None

# Not printable by themselves, but parts of Persian words, Indic letters and emoji; and the space before a unit.
_KEPT = '\u200c\u200d\u00a0'


def element(tag: str, *children: Child, **attributes: object) -> Element:
    """Returns an element.

    Args:
        tag: Its name.
        children: Texts, elements, and lists of them; None is left out.
        attributes: By name, with `_` for `-` and after Python's keywords: `class_`, `aria_label`; None is left out.
    """
    named = {name.rstrip('_').replace('_', '-'): value for name, value in attributes.items()}
    made = Element(tag, {name: visible(str(value)) for name, value in named.items() if value is not None})
    _append(made, children)
    return made


def raw(tag: str, text: str, **attributes: str) -> Element:
    """Returns a script or style element with trusted text, or with JSON from `to_json`."""
    made = element(tag, **attributes)
    made.text = text
    return made


def to_json(value: Any) -> str:
    """Returns JSON for a script element: nothing in it ends the element or begins a comment."""
    return json.dumps(value, separators=(',', ':')).replace('<', '\\u003c')


def to_html(root: Element) -> bytes:
    """Returns a page whose root is an `html` element."""
    return b'<!DOCTYPE html>\n' + ElementTree.tostring(root, encoding='unicode', method='html').encode()


def visible(text: str) -> str:
    """Returns text on one line, with control, invisible and reordering characters escaped."""
    if text.isprintable():
        return text
    spaced = re.sub(r'[ \t\r\n]+', ' ', text)
    return ''.join(c if c.isprintable() or c in _KEPT else ascii(c)[1:-1] for c in spaced)


def shorten(text: str, limit: int) -> str:
    """Returns visible text of at most `limit` characters, cut in the middle: the end of a name is often a number."""
    text = visible(text[: 10 * limit]).strip()
    half = (limit - 1) // 2
    return text if len(text) <= limit else f'{text[: limit - 1 - half]}…{text[-half:]}'


def _append(parent: Element, children: Iterable[Child]) -> None:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Element):
            parent.append(child)
        elif not isinstance(child, str):
            _append(parent, child)
        elif len(parent):
            parent[-1].tail = (parent[-1].tail or '') + visible(child)
        else:
            parent.text = (parent.text or '') + visible(child)
