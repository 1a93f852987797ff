"""A trained net in every form that other programs run: the road of an export, and all of them side by side."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from configs import early, names
from configs.export import ExportConfig, with_format
from configs.options import flat_options, make_config
from engine import evaluation
from engine.classifiers import size_in_bytes
from engine.prediction.predictor import Predictor
from export import export_factory, exporting, images, verification
from support.errors import InputError
from tests.runs import eval_config, files
from tests.served_nets import export

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


@pytest.mark.full
def test_all_are_compared_with_the_checkpoint(trained, exported, tmp_path, capsys):
    paths = [trained.checkpoint_path, *map(str, exported.values())]
    first, *others = evaluation.compare(eval_config('', compare=tuple(paths)))
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


@pytest.mark.full
def test_the_description_stands_beside(exported):
    for name, path in exported.items():
        description = json.loads(Path(f'{path}.json').read_text())
        assert (description['format'], description['quantize']) == FORMS[name][:2]
        assert description['model']['label_names'] == [str(digit) for digit in range(10)]
        assert description['normalization']['mean'] == [128.0]


@pytest.mark.full
def test_sample_data_are_written_beside(trained, tmp_path, caplog):
    export(trained.checkpoint_path, tmp_path / 'net.onnx', format='onnx', sample_test_data=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['net.onnx', 'net.onnx.json', 'net.test_data']
    export(trained.checkpoint_path, tmp_path / 'other.onnx', format='onnx', sample_test_data=1)
    samples = tmp_path / 'other.test_data'
    assert sorted(path.name for path in samples.iterdir()) == ['model.onnx', 'test_data_set_0']
    before = files(tmp_path)
    for name in ('net.onnx', 'net.onnx.json'):
        (tmp_path / name).unlink()
    with pytest.raises(
        InputError, match=r'/net\.test_data, which is written beside it, exists; move it, or add --overw'
    ):
        export(trained.checkpoint_path, tmp_path / 'net.onnx', format='onnx', sample_test_data=1)
    export(trained.checkpoint_path, tmp_path / 'net.onnx', format='onnx', sample_test_data=2, overwrite=True)
    assert set(files(tmp_path)) == set(before)
    export(trained.checkpoint_path, tmp_path / 'net.onnx', format='onnx', overwrite=True)
    assert caplog.messages[-1].startswith(f'{tmp_path}/net.test_data holds sample data of the file that was replaced')
    (samples / 'mine.txt').write_text('mine')
    before = files(tmp_path)
    with pytest.raises(InputError, match=r'other\.test_data, which is written beside it, exists'):
        export(trained.checkpoint_path, tmp_path / 'other.onnx', format='onnx', sample_test_data=1, overwrite=True)
    assert files(tmp_path) == before


@pytest.mark.parametrize('batch_size', [None, 3])
def test_onnxs_own_tools_find_the_sample_data(trained, tmp_path, batch_size):
    """They take folders of cases, each with model.onnx and test_data_set_*."""
    loader = pytest.importorskip('onnx.backend.test.loader')
    onnx = pytest.importorskip('onnx')
    reference = pytest.importorskip('onnx.reference')
    export(trained.checkpoint_path, tmp_path / 'simple' / 'net.onnx', batch_size=batch_size, sample_test_data=2)
    (case,) = loader.load_model_tests(str(tmp_path), 'simple')
    assert case.name == 'net.test_data'
    run = reference.ReferenceEvaluator(onnx.load(Path(case.model_dir, 'model.onnx'))).run
    folders = sorted(Path(case.model_dir).glob('test_data_set_*'))
    assert [folder.name for folder in folders] == ['test_data_set_0', 'test_data_set_1']
    given = []
    for folder in folders:
        image, expected = (onnx.load_tensor(folder / f'{name}_0.pb') for name in ('input', 'output'))
        assert (image.name, expected.name, list(expected.dims)) == ('images', 'logits', [batch_size or 1, 10])
        given.append(onnx.numpy_helper.to_array(image))
        found = run(None, {'images': given[-1]})[0]
        np.testing.assert_allclose(found, onnx.numpy_helper.to_array(expected), rtol=1e-4, atol=1e-4)
    assert np.abs(given[0] - given[1]).max() > 0.1


# ------------------------------------------------------------------------ the format follows from the name

ENDINGS = {'.onnx': 'onnx', '.tflite': 'tflite', '.keras': 'keras', '.weights.h5': 'weights.h5', '': 'slim'}


@pytest.mark.parametrize('ending', ENDINGS)
def test_the_format_follows_from_the_name(ending):
    config = make_config(ExportConfig, output_path=f'/tmp/net{ending}')
    assert with_format(config).export.format == ENDINGS[ending]
    assert with_format(make_config(ExportConfig, output_path=f'/a.onnx/net{ending}/')).export.format == ENDINGS[ending]


def test_a_name_alone_is_enough(trained, tmp_path):
    export(trained.checkpoint_path, tmp_path / 'net.onnx')
    assert json.loads((tmp_path / 'net.onnx.json').read_text())['format'] == 'onnx'
    export(trained.checkpoint_path, tmp_path / 'folder')
    assert (tmp_path / 'folder' / 'model.json').exists()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {'format': 'slim', 'output_path': 'x.onnx'},
            r'^--output_path=x\.onnx: --format=slim writes a folder, but names that end in \.onnx are for files; '
            'leave out --format, or choose another name$',
        ),
        (
            {'output_path': 'x.h5'},
            r'^--output_path=x\.h5: no format uses this ending; files end in \.keras, \.onnx, \.tflite, '
            r'\.weights\.h5; a folder needs no ending \(slim, or with --format=saved_model a SavedModel\)$',
        ),
        ({'output_path': 'net.pt/'}, 'no format uses this ending'),
    ],
)
def test_a_format_that_contradicts_the_name_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        early.check_export(make_config(ExportConfig, **options))


def test_a_name_in_capitals_is_no_folder(trained, tmp_path):
    with pytest.raises(InputError, match=r'NET\.ONNX: the name of such a file ends in \.onnx, for instance net\.onnx'):
        export(trained.checkpoint_path, tmp_path / 'NET.ONNX')
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------ files of one batch


@pytest.mark.quick('onnx')
@pytest.mark.parametrize('name', ['saved_model', 'tflite', 'onnx', 'onnx int8'])
def test_a_file_of_one_batch_takes_any_number_of_images(trained, tmp_path, name):
    form, _, quantize = name.partition(' ')
    path = tmp_path / ('net' if form == 'saved_model' else f'net [1]{names.EXPORT_ENDINGS[form]}')
    export(trained.checkpoint_path, path, format=form, quantize=quantize or 'none', batch_size=7)
    assert json.loads(Path(f'{path}.json').read_text())['batch_size'] == 7
    assert size_in_bytes(str(path)) > 10_000
    first, other = evaluation.compare(eval_config('', compare=(trained.checkpoint_path, str(path))))
    assert (first['num_examples'], other['num_examples']) == (360, 360)
    assert other['agreement'] >= 0.98 if quantize else other['accuracy'] == first['accuracy']
    digits = [(pixels * 255 / 16).astype(np.uint8) for pixels in load_digits().images[:9]]
    expected = Predictor(trained.checkpoint_path).predict(digits, top_k=1)
    for count in (1, 9):
        found = Predictor(str(path)).predict(digits[:count], top_k=1)
        for one, same in zip(found, expected[:count], strict=True):
            assert one.top_k[0].probability == pytest.approx(same.top_k[0].probability, abs=0.2 if quantize else 1e-4)


@pytest.mark.full
def test_encoded_images_in_one_batch(trained, tmp_path, capsys):
    options = {'format': 'saved_model', 'encoded_input': True, 'batch_size': 3}
    export(trained.checkpoint_path, tmp_path / 'net', **options)
    assert 'compared 8 encoded images: probabilities differ by at most 0' in capsys.readouterr().out


# ------------------------------------------------------------------------ images to calibrate on


@pytest.mark.parametrize('quantize', ['int8', 'qdq'])
def test_ranges_are_measured_on_a_folder_of_images(trained, tmp_path, shared_path, caplog, quantize):
    folder = shared_path('data/imagenet_raw_mini')
    with caplog.at_level('INFO', 'absl'):
        export(trained.checkpoint_path, tmp_path / 'net.onnx', quantize=quantize, calibration_images=str(folder))
    assert f'measuring ranges on 37 images of {folder}' in caplog.messages


@pytest.mark.full
def test_of_many_images_some_are_taken(trained, tmp_path, caplog, monkeypatch):
    for number, pixels in enumerate(load_digits().images[:10]):
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(tmp_path / f'{number}.png')
    monkeypatch.setattr(images, 'MOST_CALIBRATION_IMAGES', 4)
    asked = f'{tmp_path}/*.png'
    with caplog.at_level('INFO', 'absl'):
        export(trained.checkpoint_path, tmp_path / 'net.onnx', quantize='int8', calibration_images=asked)
    assert f'measuring ranges on 4 images of {asked}' in caplog.messages


@pytest.mark.parametrize(
    ('asked', 'message'),
    [
        ('0', r'^--calibration_images=0: must be at least 1, or a folder or glob of images$'),
        ('-3', '^--calibration_images=-3: must be at least 1'),
        ('none', '^--calibration_images=none: none: no such file$'),
        ('{tmp}', r'^--calibration_images=\S+: \S+: a folder without images'),
    ],
)
def test_calibration_images_that_there_are_not(trained, tmp_path, asked, message):
    asked = asked.format(tmp=tmp_path)
    with pytest.raises(InputError, match=message):
        export(trained.checkpoint_path, tmp_path / 'net.onnx', quantize='int8', calibration_images=asked)
    assert not list(tmp_path.iterdir())


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
    'layout': (
        {'format': 'slim', 'layout': 'NCHW'},
        '--layout=NCHW: --format=slim does not support it; only saved_model, ',
    ),
    'samples': ({'format': 'tflite', 'sample_test_data': 1}, 'does not support it; only onnx does'),
    'type': ({'format': 'tflite', 'inference_type': 'uint8'}, '--inference_type=uint8 is for --quantize=int8 or qdq'),
    'calibration': ({'format': 'onnx', 'calibration_images': 7}, '--calibration_images=7 is for --quantize=int8 or'),
    'format': ({'format': 'coreml'}, "unknown format 'coreml'; valid: keras, onnx, saved_model, slim, tflite, weights"),
    'images': ({'format': 'saved_model', 'verification_images': 'none.png'}, r'none\.png: '),
}


@pytest.mark.parametrize('name', REFUSED)
def test_what_cannot_be_is_refused(trained, tmp_path, name):
    options, message = REFUSED[name]
    output = tmp_path / ('x' if options['format'] == 'saved_model' else f'x.{options["format"]}')
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
    with pytest.raises(InputError, match=r'at most 1e-09, 1e-09, and 100% of the images .* nothing was kept'):
        export(trained.checkpoint_path, tmp_path / 'net.onnx', format='onnx', quantize='float16')
    assert not list(tmp_path.iterdir())
