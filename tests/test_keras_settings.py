"""Keras' settings: another backend, keras.json, and what this project's nets make of them."""

import json
import re
from pathlib import Path

import pytest

from support import keras_settings
from support.errors import InputError
from tests.scripts import run_python
from tests.test_scripts import ENVIRONMENT, TINY

PACKAGES = ('datasets', 'engine', 'export', 'importing', 'nets', 'preprocessing')
# Sums of all outputs and kinds of all layers, for each net.
_NETS = """
import json
import nets.nets_factory as factory
import keras, numpy as np
made = {}
for name in ('alexnet_bn', 'alexnet_v2', 'bvlc_alexnet', 'lenet', 'mobilenet_v1', 'inception_v3', 'resnet_v1_50'):
    model = factory.make_model(name, 3, depth_multiplier=1 / 16)
    shape = (1, *model.input_shape[1:])
    images = np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    dtypes = sorted({layer.dtype_policy.name for layer in model.layers[1:]})  # not of the input, which computes nothing
    made[name] = [np.asarray(model(images)).tolist(), dtypes]
print(keras.config.backend(), keras.config.floatx(), json.dumps(made))
"""


@pytest.fixture(name='keras_home')
def _keras_home(tmp_path: Path) -> Path:
    settings = {'backend': 'jax', 'floatx': 'float16', 'image_data_format': 'channels_first', 'epsilon': 1e-3}
    (tmp_path / 'keras.json').write_text(json.dumps(settings))
    return tmp_path


@pytest.mark.full
def test_nets_do_not_depend_on_the_settings(keras_home: Path) -> None:
    plain = run_python('-c', _NETS, KERAS_BACKEND='')
    other = run_python('-c', _NETS, KERAS_BACKEND='jax', KERAS_HOME=str(keras_home))
    assert plain.stdout.startswith('tensorflow float32'), plain.stderr
    assert other.stdout.startswith('tensorflow float16'), other.stderr
    assert plain.stdout.partition('{')[2] == other.stdout.partition('{')[2]


@pytest.mark.full
def test_a_run_with_other_settings(keras_home: Path, tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, 'KERAS_BACKEND': 'torch', 'KERAS_HOME': str(keras_home)}
    flags = [*TINY, f'--train_dir={tmp_path / "run"}', '--max_number_of_steps=1']
    finished = run_python('train_image_classifier.py', *flags, **environment)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.quick('engine')
@pytest.mark.parametrize('package', PACKAGES)
def test_every_package_sets_the_backend(package: str) -> None:
    code = f'import os, {package}; print(os.environ["KERAS_BACKEND"])'
    assert run_python('-c', code, KERAS_BACKEND='jax').stdout == 'tensorflow\n'


def test_keras_is_there_already_with_another_backend() -> None:
    """Here, for want of another one that is installed, it only says that it has one."""
    code = 'import types, sys; k = types.ModuleType("keras"); k.config = types.SimpleNamespace(backend=lambda: "jax")'
    finished = run_python('-c', f'{code}; sys.modules["keras"] = k; import nets')
    assert finished.stderr.rstrip().endswith(
        "Keras computes with jax in this process, and these nets with TensorFlow: import this project's packages "
        'before keras, or set KERAS_BACKEND=tensorflow'
    )


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"floatx": "float99"}', "keras.json: floatx is 'float99'; Keras takes float16, float32, float64"),
        ('{"image_data_format": 3}', 'keras.json: image_data_format is 3; Keras takes channels_first, channels_last'),
        ('{"epsilon": "x"}', "keras.json: epsilon is 'x'; Keras takes a number such as 1e-07"),
        ('[1]', 'keras.json: holds no settings of Keras; delete it, and Keras writes it anew'),
    ],
)
def test_files_that_keras_fails_on(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'keras.json').write_text(text)
    monkeypatch.setenv('KERAS_HOME', str(tmp_path))
    with pytest.raises(InputError, match=re.escape(message)):
        keras_settings.check()
    finished = run_python('predict_image_classifier.py', 'x.png')
    assert finished.returncode == 1
    assert finished.stderr == f'error: {tmp_path}/{message}\n'


def test_variables_that_keras_fails_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv('KERAS_HOME', str(tmp_path))
    monkeypatch.setenv('KERAS_MAX_EPOCHS', 'x')
    with pytest.raises(
        InputError, match=r"^KERAS_MAX_EPOCHS='x' in the environment: Keras takes a whole number; unset"
    ):
        keras_settings.check()


@pytest.mark.parametrize('text', ['', 'no json', '{}', '{"backend": "tensorflow", "epsilon": 1e-07}'])
def test_files_that_keras_takes(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('KERAS_HOME', str(tmp_path))
    keras_settings.check()
    (tmp_path / 'keras.json').write_text(text)
    keras_settings.check()
