"""`--global_pool`: from training over model.json to everything that takes the checkpoint."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.foreign import NetOverrides
from configs.importing import ImportConfig
from configs.options import make_config
from engine import evaluation
from engine.classifiers import load_classifier
from engine.classifiers.model_spec import ModelSpec
from importing import importing
from support.errors import InputError
from tests.runs import eval_config
from tests.served_nets import export

# More positions than alexnet_v2 has at its own size.
NET = {'model_name': 'alexnet_v2', 'depth_multiplier': 1 / 16, 'train_image_size': 259}
DATA = {'dataset_split_name': 'train[:32]', 'max_number_of_steps': 1, 'batch_size': 8}
FORMATS = {
    'slim': 'slim',
    'keras': 'net.keras',
    'weights.h5': 'net.weights.h5',
    'onnx': 'net.onnx',
    'saved_model': 'saved',
}


@pytest.fixture(scope='module')
def pooled(train_digits: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    train_dir = tmp_path_factory.mktemp('pooled') / 'run'
    train_digits(train_dir, global_pool=True, **NET, **DATA)
    return train_dir


def test_the_run_says_it(pooled: Path, train_digits: Any) -> None:
    assert json.loads((pooled / 'model.json').read_text())['global_pool'] is True
    assert '--global_pool\n' in (pooled / 'config.cfg').read_text()
    with pytest.raises(InputError, match=r'global_pool +True +False'):
        train_digits(pooled, **{**NET, 'train_image_size': 224}, **DATA)
    longer = train_digits(pooled, global_pool=True, **NET, **{**DATA, 'max_number_of_steps': 2})
    assert longer.step == 2


def test_it_is_evaluated(pooled: Path) -> None:
    results = evaluation.evaluate(eval_config(pooled, dataset_split_name='test[:20]'))
    assert results['num_examples'] == 20
    with pytest.raises(InputError, match=r'--global_pool=False \(True\)'):
        evaluation.evaluate(eval_config(pooled, dataset_split_name='test[:20]', global_pool=False, eval_image_size=224))


@pytest.mark.full
@pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')  # Keras, saving tf.Variable
def test_every_format_keeps_it(pooled: Path, tmp_path: Path) -> None:
    images = np.random.RandomState(0).uniform(-1, 1, (2, 259, 259, 3)).astype(np.float32)
    expected = load_classifier(str(pooled)).scores(images)
    for form, name in FORMATS.items():
        path = str(export(pooled, tmp_path / name, format=form))
        asked = NetOverrides(image_size=259, global_pool=True, depth_multiplier=1 / 16)
        if form == 'onnx':
            importing.import_weights(make_config(ImportConfig, source=path, train_dir=str(tmp_path / 'imported')))
            np.testing.assert_allclose(load_classifier(str(tmp_path / 'imported')).scores(images), expected, atol=1e-5)
        classifier = load_classifier(path, asked if form == 'slim' else NetOverrides())
        assert classifier.spec.global_pool
        np.testing.assert_allclose(classifier.scores(images), expected, atol=1e-5)


def test_a_model_file_without_the_field(pooled: Path, tmp_path: Path) -> None:
    """Those of earlier versions: no net averaged."""
    values = json.loads((pooled / 'model.json').read_text())
    del values['global_pool']
    (tmp_path / 'model.json').write_text(json.dumps(values))
    spec = ModelSpec.load(str(tmp_path))
    assert spec is not None
    assert spec.global_pool is False
