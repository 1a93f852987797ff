"""A trained net in every form that other programs run: the road of an export, and all of them side by side."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from configs.errors import InputError
from configs.export import ExportConfig
from configs.options import flat_options, make_config
from engine import comparison, evaluation
from engine.image_files import find_images
from engine.prediction import Predictor
from export import export_factory, exporting, images, verification
from tests.runs import eval_config, files

# One TFLite form is enough here: its converter takes seconds to start, and test_tflite.py has them all.
FORMS = {
    'saved_model': ('saved_model', 'none', 'saved'),
    'tflite int8': ('tflite', 'int8', 'net.tflite'),
    'onnx': ('onnx', 'none', 'net.onnx'),
    'onnx int8': ('onnx', 'int8', 'int8.onnx'),
    'onnx qdq': ('onnx', 'qdq', 'qdq.onnx'),
    'onnx float16': ('onnx', 'float16', 'float16.onnx'),
}
INTEGER = ('tflite int8', 'onnx int8', 'onnx qdq')


def export(checkpoint: Path | str, output: Path, **options) -> Path:
    paths = {'checkpoint_path': str(checkpoint), 'output_path': str(output)}
    return Path(exporting.export(make_config(ExportConfig, **paths, **options)))


@pytest.fixture(scope='module')
def exported(trained, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp('exported')
    return {
        name: export(trained.checkpoint_path, folder / output, format=form, quantize=quantize)
        for name, (form, quantize, output) in FORMS.items()
    }


def test_every_format_is_here_and_in_the_help():
    assert {form for form, _, _ in FORMS.values()} == {
        name for name, chosen in export_factory.FORMATS.items() if chosen.is_run
    }
    options = flat_options(ExportConfig)
    assert all(f'{name}: ' in options['format'].help for name in export_factory.FORMATS)
    quantizations = {name for chosen in export_factory.FORMATS.values() for name in chosen.quantizations}
    assert all(f'{name}' in options['quantize'].help for name in quantizations)


def test_all_are_compared_with_the_checkpoint(trained, exported, tmp_path, capsys):
    paths = [trained.checkpoint_path, *map(str, exported.values())]
    first, *others = comparison.compare(eval_config('', compare=tuple(paths)))
    assert first['num_examples'] == 360
    for name, result in zip(FORMS, others, strict=True):
        assert result['step'] == 300
        if name in INTEGER:
            assert result['accuracy'] >= first['accuracy'] - 0.01
            assert result['agreement'] >= 0.98
        else:
            assert result['accuracy'] == first['accuracy']
            assert result['agreement'] == 1.0
    printed = capsys.readouterr().out
    for kind in ('checkpoint', 'SavedModel', 'TFLite int8', 'ONNX', 'ONNX int8', 'ONNX qdq', 'ONNX float16'):
        assert re.search(rf'  {kind}  ', printed), printed
    alone = evaluation.evaluate(eval_config(exported['onnx'], eval_dir=str(tmp_path)))
    assert {name: alone[name] for name in ('accuracy', 'recall_at_5', 'kind')} == {
        name: others[2][name] for name in ('accuracy', 'recall_at_5', 'kind')
    }


def test_all_give_photographs_and_digits_the_same_labels(trained, exported, shared_path, tmp_path):
    """JPEG files as they come, and digits as PNG files; integers may differ where the net itself wavers."""
    paths = find_images([str(shared_path('data/imagenet_raw_mini'))])
    for number, pixels in enumerate(load_digits().images[:20]):
        paths.append(str(tmp_path / f'{number}.png'))
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(paths[-1])
    expected = Predictor(trained.checkpoint_path).predict(paths, top_k=2)
    assert len(expected) == 57
    for name, path in exported.items():
        found = Predictor(str(path)).predict(paths, top_k=1)
        for one, other in zip(expected, found, strict=True):
            first, second = one.top_k
            if first.probability - second.probability > 0.1 or name not in INTEGER:
                assert other.top_k[0].label == first.label, (name, one.path)


def test_the_description_stands_beside(exported):
    for name, path in exported.items():
        description = json.loads(Path(f'{path}.json').read_text())
        assert (description['format'], description['quantize']) == FORMS[name][:2]
        assert description['model']['label_names'] == [str(digit) for digit in range(10)]
        assert description['normalization']['mean'] == [128.0]


def test_sample_data_are_written_beside(trained, tmp_path):
    export(trained.checkpoint_path, tmp_path / 'net.onnx', format='onnx', sample_test_data=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'net.onnx',
        'net.onnx.json',
        'test_data_set_0',
        'test_data_set_1',
    ]
    before = files(tmp_path)
    with pytest.raises(InputError, match=r'test_data_set_0, which is written beside it, exists; move it, or --overw'):
        export(trained.checkpoint_path, tmp_path / 'other.onnx', format='onnx', sample_test_data=1)
    assert files(tmp_path) == before
    (tmp_path / 'test_data_set_0' / 'mine.txt').write_text('mine')
    with pytest.raises(InputError, match='test_data_set_0, which is written beside it, exists'):
        export(trained.checkpoint_path, tmp_path / 'net.onnx', format='onnx', sample_test_data=1, overwrite=True)
    assert files(tmp_path) == before


def test_where_nothing_can_be_written_is_said_before_any_work(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, 'load_source', None)
    (tmp_path / 'file').write_text('x')
    with pytest.raises(InputError, match=r'net.onnx: /.*/file is no folder'):
        export(trained.checkpoint_path, tmp_path / 'file' / 'net.onnx', format='onnx')
    with pytest.raises(InputError, match=r'net.onnx: /proc is not to be written to: '):
        export(trained.checkpoint_path, Path('/proc/net.onnx'), format='onnx')
    (tmp_path / 'net.onnx.json').mkdir()
    with pytest.raises(InputError, match=r'net.onnx.json, which is written beside it, exists'):
        export(trained.checkpoint_path, tmp_path / 'net.onnx', format='onnx', overwrite=True)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    'quantize': ({'format': 'tflite', 'quantize': 'qdq'}, r'--quantize=qdq: --format=tflite has none, float16, dyn'),
    'keras': ({'format': 'keras', 'quantize': 'int8'}, '--quantize=int8: --format=keras has none'),
    'layout': ({'format': 'slim', 'layout': 'NCHW'}, '--layout=NCHW: --format=slim has no such choice; saved_model, '),
    'encoded': ({'format': 'onnx', 'encoded_input': True}, '--encoded_input=True: --format=onnx has no such choice; s'),
    'samples': ({'format': 'tflite', 'sample_test_data': 1}, 'has no such choice; onnx has'),
    'type': ({'format': 'tflite', 'inference_type': 'uint8'}, '--inference_type=uint8 is for --quantize=int8 or qdq'),
    'calibration': ({'format': 'onnx', 'calibration_images': 7}, '--calibration_images=7 is for --quantize=int8 or'),
    'format': ({'format': 'coreml'}, "format 'coreml' is not one of|unknown format"),
    'ending': ({'format': 'onnx', 'output_path': 'net.tflite'}, r'the name of such a file ends in \.onnx'),
    'images': ({'format': 'saved_model', 'verification_images': 'none.png'}, r'none\.png: '),
}


@pytest.mark.parametrize('name', REFUSED)
def test_what_cannot_be_is_refused(trained, tmp_path, name):
    options, message = dict(REFUSED[name][0]), REFUSED[name][1]
    output = tmp_path / options.pop(
        'output_path', {'saved_model': 'x'}.get(options['format'], f'x.{options["format"]}')
    )
    with pytest.raises(InputError, match=message):
        export(trained.checkpoint_path, output, **options)
    assert not list(tmp_path.iterdir())


def test_images_may_be_given(trained, tmp_path, shared_path, capsys):
    folder = shared_path('data/imagenet_raw_mini')
    export(trained.checkpoint_path, tmp_path / 'net.onnx', format='onnx', verification_images=str(folder))
    assert re.search(r'compared 32 images of .*imagenet_raw_mini: probabilities differ', capsys.readouterr().out)


def test_without_data_images_are_random(trained, tmp_path, capsys, monkeypatch):
    def missing(*_):
        raise InputError('no such folder')

    monkeypatch.setattr(images, '_dataset', missing)
    with pytest.raises(
        InputError, match=r'int8 measures ranges on images of the training split: no such folder; say w'
    ):
        export(trained.checkpoint_path, tmp_path / 'int8.onnx', format='onnx', quantize='int8')
    export(trained.checkpoint_path, tmp_path / 'net.onnx', format='onnx')
    assert 'compared 32 random images (the data set is not at hand' in capsys.readouterr().out


def test_too_large_a_difference_is_an_error(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(verification._BOUNDS, 'float16', (1e-9, 1e-9, 1.0))
    with pytest.raises(InputError, match=r'at most 1e-09, 1e-09, and 100% of the images .* nothing was kept of it'):
        export(trained.checkpoint_path, tmp_path / 'net.onnx', format='onnx', quantize='float16')
    assert not list(tmp_path.iterdir())
