"""`--summary`: a net's layers, shapes and parameters, with and without a data set at hand."""

import re
from pathlib import Path
from typing import Any

import pytest

from configs.options import make_config
from configs.training import TrainConfig
from engine.training import summary
from support.errors import InputError


def test_summary(capsys: pytest.CaptureFixture[str]) -> None:
    summary.print_summary(make_config(TrainConfig, train_image_size=259, depth_multiplier=1 / 16, global_pool=True))
    printed = capsys.readouterr().out
    assert printed.startswith('alexnet_v2: 259x259x3 images, 1001 classes (imagenet)\n')
    assert re.search(r'^global_pool +GlobalAveragePooling2D +1x1x256 +0$', printed, re.MULTILINE)


@pytest.mark.parametrize(
    ('options', 'heading', 'total'),
    [
        (
            {'model_name': 'alexnet_bn', 'labels_offset': 1},
            'alexnet_bn: 227x227x3 images, 1000 classes (imagenet)',
            '62,379,752 parameters, 704 of which are moving statistics, which no gradient changes',
        ),
        # As torchvision.models.alexnet and Caffe's bvlc_alexnet have.
        (
            {'model_name': 'torchvision_alexnet', 'labels_offset': 1},
            'torchvision_alexnet: 224x224x3 images, 1000 classes (imagenet)',
            '61,100,840 parameters',
        ),
        (
            {'model_name': 'bvlc_alexnet', 'labels_offset': 1},
            'bvlc_alexnet: 224x224x3 images, 1000 classes (imagenet)',
            '60,965,224 parameters',
        ),
        ({'model_name': 'lenet', 'dataset_name': 'mnist'}, 'lenet: 28x28x1 images, 10 classes (mnist)', '3,274,634'),
        ({'model_name': 'cifarnet', 'dataset_name': 'cifar10'}, 'cifarnet: 32x32x3 images, 10 classes', '1,756,426'),
    ],
)
def test_summaries_of_nets(
    options: dict[str, Any], heading: str, total: str, capsys: pytest.CaptureFixture[str]
) -> None:
    summary.print_summary(make_config(TrainConfig, **options))
    first, names, *rows, last = capsys.readouterr().out.splitlines()
    assert first.startswith(heading)
    assert names.split() == ['layer', 'kind', 'output', 'parameters']
    assert last.startswith(total)
    counts = [int(row.split()[-1].replace(',', '')) for row in rows]
    assert sum(counts) == int(last.split()[0].replace(',', ''))


def test_summary_of_a_data_set_of_ones_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'--dataset_dir=.*none'):
        summary.print_summary(make_config(TrainConfig, dataset_name='image_folder', dataset_dir=str(tmp_path / 'none')))
