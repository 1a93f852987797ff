"""The page of a report in a real browser: pictures, tables, keyboard, widths, light and dark."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from engine.evaluation.report.page import write_report
from tests import browser
from tests.reports import HOSTILE, content_of, every_part, outcomes_of

CASES = {
    'few': content_of([outcomes_of(10, 500)], HOSTILE, **every_part(HOSTILE)),
    'many': content_of([outcomes_of(1000, 20_000)], [f'name {i}' for i in range(1000)], **every_part(HOSTILE)),
    'compared': content_of([outcomes_of(10, 500), outcomes_of(10, 500, share=0.8)], HOSTILE),
}


@pytest.fixture(scope='module', name='window')
def _window() -> Iterator[browser.Browser]:
    with browser.opened() as opened:
        yield opened


@pytest.fixture(scope='module', name='pages')
def _pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp('reports')
    for name, content in CASES.items():
        write_report(str(folder / name), content)
    return {name: folder / name / 'report.html' for name in CASES}


@pytest.mark.quick('few-390-light', 'many-1400-dark', 'compared-390-dark')
@pytest.mark.parametrize('dark', [False, True], ids=['light', 'dark'])
@pytest.mark.parametrize('width', [390, 1400])
@pytest.mark.parametrize('case', CASES)
def test_it_fits_and_everything_loads(window, pages, case, width, dark):
    window.open(pages[case], width=width, dark=dark)
    assert window.overflow() <= 0
    broken = 'return [...document.images].filter((image) => !image.complete || !image.naturalWidth).length'
    assert window.run(broken) == 0
    assert window.run('return window.broken') is None
    assert window.errors() == []
    background = window.run('return getComputedStyle(document.body).backgroundColor')
    assert (sum(int(part) for part in background[4:-1].split(',')) < 150) is dark


def test_text_has_contrast(window, pages):
    """At least 4.5 to 1, WCAG's level AA, of the colours of text on those behind it."""
    for dark in (False, True):
        window.open(pages['few'], dark=dark)
        assert window.run(_CONTRASTS) == []


_CONTRASTS = """
const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
const pixel = (...colors) => {
  for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const luminance = (color) => color.slice(0, 3).map((value) => value / 255)
  .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
  .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
const low = [];
const texts = 'p, td, th, dt, dd, a, h1, h2, h3, span, bdi, b, button, output, figcaption, summary';
for (const element of document.querySelectorAll(texts)) {
  if (!element.innerText?.trim() || element.closest('.skip')) continue;
  const behind = [];
  for (let each = element; each; each = each.parentElement) behind.unshift(getComputedStyle(each).backgroundColor);
  const [back, front] = [pixel(...behind), pixel(...behind, getComputedStyle(element).color)].map(luminance);
  const contrast = (Math.max(back, front) + 0.05) / (Math.min(back, front) + 0.05);
  if (contrast < 4.5) low.push(`${element.outerHTML.slice(0, 80)}: ${contrast.toFixed(2)}`);
}
return low;
"""


def column(window: browser.Browser, index: int) -> list[str]:
    rows = 'table.sortable tbody tr:not([hidden])'
    return window.run(f'return [...document.querySelectorAll("{rows}")].map((row) => row.cells[{index}].textContent)')


def test_the_table_sorts_and_filters(window, pages):
    window.open(pages['many'])
    heads = window.driver.find_elements(By.CSS_SELECTOR, 'table.sortable th[scope=col]')
    for index in (0, 2, 3):
        button = heads[index].find_element(By.TAG_NAME, 'button')
        for direction in ('ascending', 'descending'):
            button.send_keys(Keys.ENTER)  # a real button, which the keyboard presses
            assert [each.get_attribute('aria-sort') for each in heads].count(direction) == 1
            assert heads[index].get_attribute('aria-sort') == direction
            values = [float(text.replace(',', '').rstrip('\u00a0%')) for text in column(window, index)]
            assert values == sorted(values, reverse=direction == 'descending')
    field = window.driver.find_element(By.CSS_SELECTOR, '.filter input')
    field.send_keys('name 99')
    assert sorted(column(window, 1)) == sorted(['name 99', *(f'name 99{i}' for i in range(10))])
    assert '11 of 1000 classes' in window.run('return document.querySelector(".filter output").textContent')
    field.send_keys(Keys.BACKSPACE * 7)
    assert len(column(window, 1)) == 1000


def test_the_map_of_a_confusion_matrix_tells_its_numbers(window, pages):
    """By keyboard: the sum over a block, then after zooming in a cell, equal to those of the statistics."""
    window.open(pages['many'])
    (subject,) = CASES['many'].subjects
    area = window.driver.find_element(By.CSS_SELECTOR, '.map .scroll')

    def told() -> str:
        return window.run('return document.querySelector(".map output").textContent')

    area.send_keys(Keys.ARROW_DOWN)
    assert 'name' in told()
    area.send_keys('+')
    area.send_keys(Keys.ARROW_DOWN)
    row, column = window.run("""
        const data = JSON.parse(document.querySelector('.map script').textContent);
        return [data.names[1], data.names[0]];
    """)
    label, prediction = int(row.removeprefix('name ')), int(column.removeprefix('name '))
    count = subject.statistics.confusion[label, prediction]
    total = next(each.support for each in subject.statistics.classes if each.index == label)
    assert told().startswith(f'{row} → {column}: {count} of {total} (')
    window.driver.find_element(By.CSS_SELECTOR, '[data-zoom="0.5"]').click()
    assert not window.driver.find_element(By.CSS_SELECTOR, '[data-zoom="0.5"]').is_enabled()


def test_the_keyboard_reaches_everything(window, pages):
    """The first tab leads to the results; each tab after it to another element, with an outline."""
    window.open(pages['few'])
    seen = []
    for _ in range(40):
        window.driver.switch_to.active_element.send_keys(Keys.TAB)
        focused = window.run("""
            const element = document.activeElement;
            return [element.tagName, element.textContent.slice(0, 20), getComputedStyle(element).outlineStyle];
        """)
        assert focused[2] == 'solid', focused
        seen.append((focused[0], focused[1]))
    assert seen[0] == ('A', 'Skip to the results')
    assert ('BUTTON', 'Accuracy') in seen
    levels = window.run('return [...document.querySelectorAll("h1, h2, h3")].map((each) => Number(each.tagName[1]))')
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
