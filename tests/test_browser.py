"""The browser of the tests sees what a page does, and leaves nothing behind."""

from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests import browser as browsers
from tests.browser import Browser

_PAGE = """<!doctype html><meta charset="utf-8"><title>page</title>
<style>@media (prefers-color-scheme: dark) { body { background: black } }</style>
<div style="width:700px;height:1500px">wide</div>{extra}"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / 'page.html'
    path.write_text(_PAGE.replace('{extra}', ''))
    return path


def test_sizes_colours_and_screenshots(browser: Browser, page: Path, tmp_path: Path) -> None:
    for width, overflow in ((390, 700 + 8 - 390), (1400, 0)):
        browser.open(page, width=width)
        assert browser.run('return [innerWidth, innerHeight]') == [width, 1000]
        assert browser.overflow() == overflow
        with Image.open(browser.screenshot(tmp_path / 'whole.png')) as picture:
            assert picture.size == (width + overflow, 1500 + 2 * 8)
        with Image.open(browser.screenshot(tmp_path / 'seen.png', whole=False)) as picture:
            assert picture.size == (width, 1000)
    browser.open(page, dark=True)
    assert browser.run('return getComputedStyle(document.body).backgroundColor') == 'rgb(0, 0, 0)'


def test_errors_of_this_page_only(browser: Browser, page: Path, tmp_path: Path) -> None:
    broken = tmp_path / 'broken.html'
    broken.write_text(_PAGE.replace('{extra}', '<img src="absent.png"><script>absent()</script>'))
    browser.open(broken)
    errors = browser.errors()
    for expected in ('absent.png', 'absent is not defined'):
        assert sum(expected in error for error in errors) == 1, errors
    assert len(errors) == 2
    browser.open(broken)
    browser.open(page)
    assert browser.errors() == []


def test_nothing_is_left() -> None:
    this = psutil.Process()
    before = set(this.children(recursive=True))
    with browsers.opened() as browser:
        profile = Path(browser.driver.capabilities['chrome']['userDataDir'])
        processes = set(this.children(recursive=True)) - before
        assert {'chromedriver', 'chromium'} <= {process.name() for process in processes}
        assert profile.exists()
    assert not profile.exists()
    assert psutil.wait_procs(processes, timeout=30)[1] == []
