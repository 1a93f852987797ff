"""The real TensorBoard, in a real browser, shows what runs have written."""

import importlib.util
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.browser import Browser

pytestmark = pytest.mark.full

# Of all elements, those of shadow trees included: what they show, and which of them have a tag.
_EVERYTHING = """
const every = root => [...root.querySelectorAll('*')].flatMap(
    element => [element, ...(element.shadowRoot ? every(element.shadowRoot) : [])]);
const elements = every(document);
"""
_SHOWN = f"""{_EVERYTHING}
const text = elements.map(element => [...element.childNodes].filter(node => node.nodeType === Node.TEXT_NODE)
    .map(node => node.data.trim()).join(' ')).join('\\n');
return arguments[0].every(expected => text.includes(expected));
"""
_PICTURES = f"""{_EVERYTHING}
const pictures = elements.filter(element => element.tagName === 'IMG' && element.src.includes('individualImage'));
return pictures.length >= arguments[0] && pictures.every(picture => picture.complete && picture.naturalWidth > 0)
    && pictures.map(picture => [picture.naturalWidth, picture.naturalHeight]);
"""
_CHARTS = f'{_EVERYTHING} return elements.filter(element => element.tagName === arguments[0]).length'


@pytest.fixture(scope='module')
def runs(tmp_path_factory: pytest.TempPathFactory, train_digits: Callable[..., Any]) -> Path:
    """Two runs with evaluations, one of them with a trace."""
    folder = tmp_path_factory.mktemp('runs')
    options = {'max_number_of_steps': 40, 'eval_every_steps': 20, 'summarize_images': True, 'save_summaries_steps': 40}
    train_digits(folder / 'slow', **options, learning_rate=0.0125, profile_steps='10:12')
    train_digits(folder / 'fast', **options, learning_rate=0.0375)
    return folder


@pytest.fixture(scope='module')
def board(runs: Path) -> Iterator[str]:
    """The address of a TensorBoard of the runs; nothing of it is left afterwards."""
    command = [sys.executable, '-m', 'tensorboard.main', f'--logdir={runs}', '--port=0', '--host=127.0.0.1']
    with open(runs / 'log.txt', 'w') as log:
        process = psutil.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    started = [process]
    try:
        url = _wait_for_charts(process, runs / 'log.txt')
        started += process.children(recursive=True)
        yield url
    finally:
        process.terminate()
        assert psutil.wait_procs(started, timeout=60)[1] == []


def _wait_for_charts(process: psutil.Popen, log: Path) -> str:
    """Waits until the server has read the runs; returns its address."""
    for _ in range(600):
        time.sleep(0.2)
        found = re.search(r'TensorBoard \S+ at (http://[\d.:]+)', log.read_text())
        if process.poll() is not None:
            break
        if found is None:
            continue
        url = found[1]
        try:
            with urllib.request.urlopen(f'{url}/data/plugins_listing', timeout=30) as answer:
                plugins = json.load(answer)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            plugins = {}
        if all(plugins.get(name, {}).get('enabled') for name in ('scalars', 'images', 'pr_curves', 'hparams')):
            return url
    return pytest.fail(f'TensorBoard does not show the runs: {log.read_text()}')


def test_scalars(browser: Browser, board: str) -> None:
    browser.open(f'{board}/#scalars')
    browser.wait_for(_SHOWN, ['accuracy', 'slow/eval_test', 'fast/eval_test', 'losses', 'mean_class_accuracy'])
    assert browser.wait_for(_CHARTS, 'TF-SCALAR-CARD') >= 2
    assert browser.errors() == []


def test_pictures(browser: Browser, board: str) -> None:
    browser.open(f'{board}/#images', height=3000)
    browser.wait_for(_SHOWN, ['confusion_matrix', 'galleries/most_confident_mistakes', 'training_images'])
    sizes = browser.wait_for(_PICTURES, 2)
    assert [680, 630] in sizes  # of a confusion matrix of ten classes
    assert browser.errors() == []


def test_precision_recall_curves(browser: Browser, board: str) -> None:
    browser.open(f'{board}/#pr_curves', height=3000)
    browser.wait_for(_SHOWN, [f'precision_recall/class_{i}/pr_curves' for i in range(3)])
    browser.wait_for(_SHOWN, ['step 40'])
    assert browser.wait_for(_CHARTS, 'TF-PR-CURVE-CARD') >= 3
    assert browser.errors() == []


def test_runs_are_compared_by_their_options(browser: Browser, board: str) -> None:
    browser.open(f'{board}/#hparams', width=2600)
    browser.wait_for(_SHOWN, ['learning_rate', '0.012500', '0.037500', 'eval_test.accuracy'])
    assert browser.errors() == []


def test_the_trace(browser: Browser, board: str) -> None:
    if importlib.util.find_spec('xprof') is None:
        pytest.skip("no xprof, TensorBoard's plugin for traces: pip install -c constraints.txt -e '.[profile]'")
    browser.open(f'{board}/#profile')
    frame = browser.wait_for(f"{_EVERYTHING} return elements.find(element => element.tagName === 'IFRAME')")
    browser.driver.switch_to.frame(frame)
    try:
        browser.wait_for(_SHOWN, ['Sessions (1)', 'slow/'])
    finally:
        browser.driver.switch_to.default_content()
