"""A headless Chromium for tests that look at pages: Debian's, installed where it is missing."""

import base64
import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.support.ui import WebDriverWait

PROGRAMS = ('chromium', 'chromedriver')
_PACKAGES = ('chromium', 'chromium-driver')
_FLAGS = (
    '--headless=new',
    '--no-sandbox',  # which Chromium refuses to set up for root
    '--disable-gpu',
    '--disable-dev-shm-usage',  # /dev/shm of a container is small
    '--hide-scrollbars',
    '--no-first-run',
    # It asks no other host for anything.
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-quic',
    '--disable-sync',
)


class Browser:
    """One window of Chromium. `driver` is Selenium's, for whatever has no method here."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, page: str | Path, *, width: int = 1400, height: int = 1000, dark: bool = False) -> None:
        """Loads a page, and returns when it and its pictures are there.

        Args:
            page: A URL, or the path of a file.
            width: Of the page, in CSS pixels. Unlike a window's, it can be a phone's.
            height: Of the part that is seen, in CSS pixels.
            dark: Whether the page is told that dark colours are preferred.
        """
        self.resize(width, height)
        scheme = {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}
        self.driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [scheme]})
        self.driver.get('about:blank')  # a page of which only the #fragment differs would not be loaded
        self.errors()  # of the page before
        self.driver.get(page.resolve().as_uri() if isinstance(page, Path) else page)

    def resize(self, width: int, height: int = 1000) -> None:
        """Sets the size of the page that is seen, in CSS pixels."""
        metrics = {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': False}
        self.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)

    def run(self, script: str, *arguments: Any) -> Any:
        """Runs JavaScript, the body of a function of `arguments`, and returns what it returns."""
        return self.driver.execute_script(script, *arguments)

    def errors(self) -> list[str]:
        """Returns the severe messages of the browser's console since the last call: exceptions, failed loads."""
        return [entry['message'] for entry in self.driver.get_log('browser') if entry['level'] == 'SEVERE']

    def wait_for(self, script: str, *arguments: Any, seconds: float = 60) -> Any:
        """Waits until JavaScript returns something true, and returns it; fails the test where it does not."""
        try:
            return WebDriverWait(self.driver, seconds, poll_frequency=0.1).until(lambda _: self.run(script, *arguments))
        except TimeoutException:
            return pytest.fail(f'after {seconds} s not yet: {script}; {self.errors()}')

    def overflow(self) -> int:
        """Returns by how many CSS pixels the page is wider than what is seen of it."""
        return self.run('const page = document.documentElement; return page.scrollWidth - page.clientWidth')

    def screenshot(self, path: Path, *, whole: bool = True) -> Path:
        """Writes a PNG of the page, or of the part that is seen, and returns its path."""
        options = {'format': 'png', 'captureBeyondViewport': whole}
        if whole:
            size = self.driver.execute_cdp_cmd('Page.getLayoutMetrics', {})['cssContentSize']
            options['clip'] = {'x': 0, 'y': 0, 'width': size['width'], 'height': size['height'], 'scale': 1}
        path.write_bytes(base64.b64decode(self.driver.execute_cdp_cmd('Page.captureScreenshot', options)['data']))
        return path


@contextlib.contextmanager
def opened() -> Iterator[Browser]:
    """Opens a browser with a profile of its own; nothing of it is left afterwards. Skips where there is none."""
    programs = _programs()
    with tempfile.TemporaryDirectory(prefix='browser-', ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = programs['chromium']
        for flag in (*_FLAGS, f'--user-data-dir={profile}'):
            options.add_argument(flag)
        options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
        # Named, so Selenium downloads none.
        service = webdriver.ChromeService(programs['chromedriver'], log_output=subprocess.DEVNULL)
        driver = webdriver.Chrome(options, service)
        try:
            yield Browser(driver)
        finally:
            driver.quit()


def _programs() -> dict[str, str]:
    """Returns the paths of Chromium and its driver, which are installed where they are missing."""
    found = _found()
    if len(found) == len(PROGRAMS):
        return found
    if shutil.which('apt-get') is None or os.geteuid() != 0:
        pytest.skip(f'no {" or ".join(PROGRAMS)}: install what Debian calls {" and ".join(_PACKAGES)}')
    with open(Path(tempfile.gettempdir()) / 'browser-for-tests.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other processes run tests too, and one of them installs it
        if len(found := _found()) < len(PROGRAMS):
            _install()
            found = _found()
    if len(found) < len(PROGRAMS):
        pytest.skip(f'apt-get has installed {_PACKAGES}, and {PROGRAMS} are not on the path')
    return found


def _found() -> dict[str, str]:
    return {name: path for name in PROGRAMS if (path := shutil.which(name))}


def _install() -> None:
    quiet = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}
    for command in (['update'], ['install', '--yes', '--no-install-recommends', *_PACKAGES]):
        apt = ['apt-get', '--quiet', '-o', 'DPkg::Lock::Timeout=120', *command]
        done = subprocess.run(apt, env=quiet, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f'{" ".join(apt)} failed, so there is no browser: {done.stderr.strip()[-300:]}')
