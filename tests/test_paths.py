"""`~` in options that are paths: in every script, on the command line, in flagfiles, and from Python."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from configs.evaluation import EvalConfig
from configs.export import ExportConfig
from configs.options import flat_options, flat_values, make_config
from configs.prediction import PredictConfig
from configs.training import TrainConfig
from support.errors import InputError
from tests.scripts import SCRIPTS
from tests.test_scripts import CACHE, ENVIRONMENT, ROOT

OPTIONS = [
    (config, option)
    for config in dict.fromkeys(c for c, _ in SCRIPTS.values())
    for option in flat_options(config).values()
]
# What else is called a folder, a file or a path.
_NAMED = re.compile(
    r'(^|_)(dir|file|path)$|^(compare|source|visualize|images|(verification|calibration)_images|cache)$'
    r'|^(class_map|real_labels)$'
)


@pytest.fixture(name='home')
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / 'home'
    home.mkdir()
    monkeypatch.setenv('HOME', str(home))
    return home


def test_options_that_are_paths_are_declared_as_such() -> None:
    paths = {(config, option.name) for config, option in OPTIONS if option.path}
    named = {(config, option.name) for config, option in OPTIONS if _NAMED.search(option.name)}
    assert paths == named


@pytest.mark.parametrize(
    ('config_class', 'option'), [(c, o) for c, o in OPTIONS if o.path], ids=lambda x: getattr(x, 'name', x)
)
def test_home_is_expanded(config_class: type, option: Any, home: Path) -> None:
    value = ('~/x', '~', './~/x', '/a/~', 'x') if option.many else '~/x'
    found = flat_values(make_config(config_class, **{option.name: value}))[option.name]
    assert found == ((f'{home}/x', str(home), './~/x', '/a/~', 'x') if option.many else f'{home}/x')
    with pytest.raises(InputError, match=re.escape(f"--{option.name}=~no.such/x: this machine has no user 'no.such'")):
        make_config(config_class, **{option.name: ('~no.such/x',) if option.many else '~no.such/x'})


def test_paths_of_pathlib_are_taken() -> None:
    config = make_config(TrainConfig, train_dir=Path('/tmp/run'))
    assert config.checkpoint.train_dir == '/tmp/run'


def test_a_file_whose_name_begins_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path('~$draft.png').touch()
    assert make_config(PredictConfig, images=('~$draft.png',)).prediction.images == ('~$draft.png',)


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('os.path.expanduser', lambda path: path)  # as where there is neither HOME nor a user
    with pytest.raises(InputError, match='the home folder of this user is unknown'):
        make_config(EvalConfig, eval_dir='~/x')


@pytest.mark.full
def test_runs_keep_the_whole_path(home: Path, tmp_path: Path) -> None:
    """A run by a flagfile in the home folder: nothing called ~ is made, and config.cfg has the expanded path."""
    (home / 'x.cfg').write_text('--train_dir=~/run\n--model_name=lenet\n--depth_multiplier=0.25\n')
    flags = ['--flagfile=~/x.cfg', '--dataset_name=digits', '--dataset_dir=~/digits', '--max_number_of_steps=1']
    command = [sys.executable, str(ROOT / 'train_image_classifier.py'), *flags]
    environment = {**ENVIRONMENT, 'HOME': str(home)}
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert f'--train_dir={home}/run\n' in (home / 'run' / 'config.cfg').read_text()
    assert not (tmp_path / '~').exists()
    assert (home / 'digits').is_dir()
    assert CACHE


def test_an_export_is_not_refused_for_it(home: Path) -> None:
    assert make_config(ExportConfig, output_path='~/net.keras').export.output_path == f'{home}/net.keras'
