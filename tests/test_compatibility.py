"""Files that an earlier commit wrote are still read: a run, its exports, a converted data set.

`fixtures/` was made by the commit before the folders of `engine/` were: lenet at 8 px and width 1/4, 30 steps of sgd at
a learning rate of 0.1 on the embedded digits (`--dataset_dir=/tmp/dg`, seed 1), then to ONNX, int8 TFLite, Keras;
and four images converted to TFRecords.
"""

import shutil
from pathlib import Path

import pytest

from configs.conversion import ConvertConfig
from configs.evaluation import EvalConfig
from configs.options import from_flagfile, make_config, replace_options
from configs.training import TrainConfig
from datasets import dataset_factory
from datasets.conversion.verify import verify
from engine.evaluation import evaluate
from engine.training import train

FIXTURES = Path(__file__).parent / 'fixtures'
ACCURACY = 0.5916666667  # of the 360 test images, as that commit evaluated it


def test_a_run_resumes(digits_dir: Path, tmp_path: Path) -> None:
    run = shutil.copytree(FIXTURES / 'v0_run', tmp_path / 'run')
    config = replace_options(
        make_config(TrainConfig, **from_flagfile(TrainConfig, (run / 'config.cfg').read_text())),
        train_dir=str(run),
        dataset_dir=str(digits_dir),
        max_number_of_steps=32,
    )
    assert train(config).step == 32
    assert (run / 'model.ckpt-32.index').exists()


@pytest.mark.parametrize('name', ['v0_run', 'net.onnx', 'net.tflite', 'net.keras'])
def test_what_it_was_evaluated_to(name: str, digits_dir: Path, tmp_path: Path) -> None:
    config = make_config(
        EvalConfig,
        checkpoint_path=str(FIXTURES / name),
        dataset_name='digits',
        dataset_dir=str(digits_dir),
        dataset_split_name='test',
        eval_dir=str(tmp_path),
    )
    assert evaluate(config)['accuracy'] == pytest.approx(ACCURACY, abs=1.1 / 360)  # an image, by rounding


def test_a_converted_data_set_opens(tmp_path: Path) -> None:
    records = shutil.copytree(FIXTURES / 'v0_records', tmp_path / 'records')
    dataset = dataset_factory.get_dataset('image_folder', str(records), 'train')
    assert (dataset.num_examples, dataset.label_names) == (4, ('a', 'b'))
    assert verify(make_config(ConvertConfig, dataset_name='image_folder', dataset_dir=str(records))) == 0
