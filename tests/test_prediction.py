"""Predictions against evaluation, in every form of output, and what becomes of images that cannot be used."""

import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs.foreign import ForeignOptions, NetOverrides
from configs.options import make_config
from configs.prediction import PredictConfig
from datasets.dataset_factory import get_dataset
from engine import evaluation
from engine.classifiers import Classifier, Interface, Runtime, loading, softmax
from engine.prediction import predict as predicting
from engine.prediction.formats import FORMATS
from engine.prediction.predictor import Guess, Prediction, Predictor
from support.errors import InputError
from support.tables import shortest_names
from tests.runs import eval_config
from tests.scripts import ROOT, run_python
from tests.sources import write_files


@pytest.fixture(scope='module')
def digits(digits_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A folder of the images that evaluation reads, as PNG files, and the label of each."""
    folder = tmp_path_factory.mktemp('images')
    examples = get_dataset('digits', str(digits_dir), 'test', 0).examples
    labels = {}
    for number in range(len(examples)):
        example = examples.check(number)
        path = folder / f'{number:03}.png'
        path.write_bytes(example['image'].numpy())
        labels[str(path)] = int(example['label'])
    return folder, labels


@pytest.fixture(scope='module')
def predictor(trained) -> Predictor:
    return Predictor(trained.checkpoint_path)


def config_of(checkpoint_path: object, *images: object, **options: Any) -> PredictConfig:
    return make_config(
        PredictConfig, checkpoint_path=str(checkpoint_path), images=tuple(map(str, images)), devices='cpu', **options
    )


# ------------------------------------------------------------------------ against evaluation


@pytest.mark.quick('None')
@pytest.mark.parametrize('decay', [None, 0.9])
def test_predictions_have_the_accuracy_of_the_evaluation(trained, digits, tmp_path, capsys, decay):
    folder, labels = digits
    measured = evaluation.evaluate(
        eval_config(trained.checkpoint_path, eval_dir=str(tmp_path), recall_at=(3,), moving_average_decay=decay)
    )
    capsys.readouterr()
    config = config_of(trained.checkpoint_path, folder, format='json', top_k=3, moving_average_decay=decay)
    assert predicting.predict(config) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row['path'] for row in rows] == sorted(labels)
    indices = {row['path']: [guess['index'] for guess in row['top_k']] for row in rows}
    assert measured['num_examples'] == len(rows) == 360
    assert measured['accuracy'] == np.mean([indices[path][0] == label for path, label in labels.items()])
    assert measured['recall_at_3'] == np.mean([label in indices[path] for path, label in labels.items()])


def test_paths_bytes_and_arrays_are_the_same_to_a_net(predictor, digits):
    paths = sorted(digits[1])[:5]
    images = [[path, Path(path).read_bytes(), np.asarray(Image.open(path)), Path(path)] for path in paths]
    # One at a time: where an image stands in a batch changes the last bits of its probabilities.
    predictions = [predictor.predict([form], top_k=2)[0] for forms in images for form in forms]
    for index, path in enumerate(paths):
        named, *others, as_path = predictions[4 * index : 4 * index + 4]
        assert (named.path, as_path.path, named.error) == (path, path, None)
        assert others == [Prediction('', named.top_k)] * 2
        assert as_path == named
    assert len(predictions[0].top_k) == 2


def test_probabilities_are_the_softmax_of_the_logits(predictor, digits):
    classifier = predictor.classifier
    (prediction,) = predictor.predict([sorted(digits[1])[0]], top_k=99)
    assert len(prediction.top_k) == 10
    assert [guess.label for guess in prediction.top_k] == [
        classifier.spec.label_names[guess.index] for guess in prediction.top_k
    ]
    probabilities = [guess.probability for guess in prediction.top_k]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    image = classifier.preprocessing.host_eval(Path(prediction.path).read_bytes()).numpy()
    expected = classifier.probabilities(image[None])[0]
    np.testing.assert_allclose(probabilities, expected[[guess.index for guess in prediction.top_k]], rtol=1e-5)


def test_batches_of_any_size_give_the_same(trained, predictor, digits):
    paths = sorted(digits[1])[:10]
    expected = predictor.predict(paths)
    for prediction, other in zip(
        expected, Predictor(trained.checkpoint_path, batch_size=3).predict(paths), strict=True
    ):
        assert prediction.path == other.path
        for guess, other_guess in zip(prediction.top_k, other.top_k, strict=True):
            assert guess.index == other_guess.index
            assert guess.probability == pytest.approx(other_guess.probability, rel=1e-5)


def of_scores(predictor: Predictor, scores: list[float], output: str = 'logits') -> Predictor:
    """A predictor whose net gives the same scores for every image."""
    rows = np.array([scores], np.float32)
    changed = object.__new__(Predictor)
    changed.classifier = Classifier(
        'x',
        'x',
        dataclasses.replace(predictor.classifier.spec, num_classes=len(scores), label_names=()),
        0,
        Interface(output=output),
        lambda images: rows.repeat(len(images), 0),
    )
    changed._batch_size, changed._apply_exif_orientation = 2, True
    return changed


PIXELS = np.zeros((8, 8), np.uint8)


def test_order_is_that_of_the_logits_and_of_equal_ones_the_first(predictor):
    (prediction,) = of_scores(predictor, [1.0, 200.0, 200.0, 300.0, 300.00003]).predict([PIXELS])
    assert [guess.index for guess in prediction.top_k] == [4, 3, 1, 2, 0]
    assert [guess.label for guess in prediction.top_k] == ['4', '3', '1', '2', '0']
    assert prediction.top_k[2].probability == prediction.top_k[3].probability


def test_probabilities_of_a_file_are_taken_as_they_are(predictor):
    (prediction,) = of_scores(predictor, [0.25, 0.75], 'probabilities').predict([PIXELS])
    assert prediction.top_k == (Guess(1, '1', 0.75), Guess(0, '0', 0.25))


def of_another(monkeypatch, run: Callable[[np.ndarray], np.ndarray], **options: Any) -> Predictor:
    """A predictor of a file of another program, which runs as `run` does."""
    opened = Runtime('x', (None, 8, 8, 1), 4, {}, run)
    monkeypatch.setattr(loading, 'find_runtime', lambda path: lambda path, foreign: opened)
    asked = NetOverrides(preprocessing_name='lenet', labels_offset=1)
    return Predictor('net.onnx', asked, ForeignOptions(**options))


@pytest.mark.parametrize('gives_probabilities', [False, True])
def test_a_file_of_others_may_end_in_a_softmax(monkeypatch, gives_probabilities):
    def run(images: np.ndarray) -> np.ndarray:
        logits = images.reshape(len(images), 64)[:, :4] * 3
        return softmax(logits) if gives_probabilities else logits

    pixels = np.random.RandomState(0).randint(0, 256, (8, 8)).astype(np.uint8)
    (prediction,) = of_another(monkeypatch, run).predict([pixels])
    expected = np.sort(softmax((pixels[0, :4] / 128 - 1)[None] * 3)[0])[::-1]
    np.testing.assert_allclose([guess.probability for guess in prediction.top_k], expected, rtol=1e-5)


@pytest.mark.parametrize('names', [('b', 'c', 'd', 'e'), ('background', 'b', 'c', 'd', 'e')])
def test_names_of_classes_come_from_a_file(monkeypatch, tmp_path, names):
    """Of a data set whose first class the net leaves out."""
    (tmp_path / 'labels.txt').write_text(''.join(f'{index}:{name}\n' for index, name in enumerate(names)))
    predictor = of_another(monkeypatch, lambda images: images[:, 0, :4, 0], labels_path=str(tmp_path / 'labels.txt'))
    (prediction,) = predictor.predict([np.arange(0, 128, 2, dtype=np.uint8).reshape(8, 8)])
    assert [(guess.index, guess.label) for guess in prediction.top_k] == [(3, 'e'), (2, 'd'), (1, 'c'), (0, 'b')]


def test_scores_that_are_not_finite_are_an_error(predictor):
    (prediction,) = of_scores(predictor, [0.0, float('nan')]).predict([PIXELS])
    assert prediction == Prediction('', (), 'the net gives values that are not finite; its weights are not')


def test_one_image_alone_is_a_list_too(predictor):
    with pytest.raises(TypeError, match='must be a list'):
        predictor.predict('cat.jpg')


# ------------------------------------------------------------------------ what is written

NAMES = ['new\nline.png', 'tab\t.png', 'comma, "quote".png', 'é.png', os.fsdecode(b'\xff.png')]


@pytest.fixture
def odd(digits, tmp_path) -> list[str]:
    """Images of odd names, twice each, and between them some that cannot be used."""
    good = Path(sorted(digits[1])[0]).read_bytes()
    write_files(tmp_path, {**dict.fromkeys(NAMES, good), 'cut.png': good[:50], 'empty.png': b''})
    return [*(f'{tmp_path}/{name}' for name in [*NAMES, 'cut.png', 'empty.png', *NAMES]), f'{tmp_path}/no*.png']


ERRORS = {
    'cut.png': 'a PNG that is damaged or cut short',
    'empty.png': 'the file is empty',
    'no*.png': 'no file matches',
}


def test_json_says_everything(trained, odd, capsys):
    assert predicting.predict(config_of(trained.checkpoint_path, *odd, format='json')) == 3
    captured = capsys.readouterr()
    rows = json.loads(captured.out)
    assert [row['path'] for row in rows] == odd
    assert {os.path.basename(row['path']): row['error'] for row in rows if 'error' in row} == ERRORS
    good = [row['top_k'] for row in rows if 'error' not in row]
    assert good == [good[0]] * 2 * len(NAMES)
    assert [set(guess) for guess in good[0]] == [{'index', 'label', 'probability'}] * 5
    assert all(row['top_k'] == [] for row in rows if 'error' in row)
    assert captured.err == 'error: 3 of 13 images could not be used; the output says why\n'


def test_csv_has_a_row_for_each_image_and_rank(trained, odd, tmp_path):
    path = str(tmp_path / 'out.csv')
    assert predicting.predict(config_of(trained.checkpoint_path, *odd, format='csv', top_k=2, output_path=path)) == 3
    with open(path, newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    shown = [name.encode(errors='backslashreplace').decode() for name in odd]
    expected = [(name, rank) for name in shown for rank in ([''] if os.path.basename(name) in ERRORS else ['1', '2'])]
    assert [(row['path'], row['rank']) for row in rows] == expected
    for row in rows:
        assert row['error'] == ERRORS.get(os.path.basename(row['path']), '')
        assert (float(row['probability'] or 0) > 0) == (not row['error'])
        assert bool(row['index']) == bool(row['label']) == (not row['error'])


def test_text_has_a_line_for_each_class(trained, odd, capsys):
    assert predicting.predict(config_of(trained.checkpoint_path, *odd, top_k=3)) == 3
    lines = capsys.readouterr().out.split('\n')
    assert len(lines) == 10 * 4 + 3 * 2 + 1
    assert lines[0] == repr(odd[0])
    assert lines[12] == odd[3]
    index, probability, label = lines[1].split()
    assert index == label
    assert 0.1 < float(probability) <= 1
    cut, empty = (f'  error: {ERRORS[os.path.basename(name)]}' for name in odd[5:7])
    assert lines[20:25] == [odd[5], cut, odd[6], empty, repr(odd[7])]


@pytest.mark.parametrize(
    ('name', 'empty'), [('text', ''), ('json', '[]\n'), ('csv', 'path,rank,index,label,probability,error\n')]
)
def test_forms_of_nothing(name, empty):
    assert ''.join(FORMATS[name]([])) == empty


CELLS = {
    '=1+2.png': "'=1+2.png",
    '+x.png': "'+x.png",
    '-x.png': "'-x.png",
    '@SUM(A1).png': "'@SUM(A1).png",
    '\tx.png': "'\tx.png",
    '\rx.png': "'\\x0dx.png",
    '-': '-',  # standard input
    'a=b.png': 'a=b.png',
    'a\x1b[31mb.png': 'a\\x1b[31mb.png',
    'a\x9bb.png': 'a\\x9bb.png',
    'new\nline.png': 'new\nline.png',
}


@pytest.mark.parametrize('name', CELLS)
def test_a_spreadsheet_computes_nothing_and_a_terminal_obeys_nothing(name):
    predictions = [Prediction(name, (Guess(0, name, 0.5),)), Prediction(name, error=name)]
    rows = list(csv.DictReader(io.StringIO(''.join(FORMATS['csv'](predictions)), newline='')))
    assert [row['path'] for row in rows] == [CELLS[name]] * 2
    assert (rows[0]['label'], rows[1]['error']) == (CELLS[name], CELLS[name])
    text = ''.join(FORMATS['text'](predictions))
    assert text.replace('\n', '').isprintable()
    assert [row['path'] for row in json.loads(''.join(FORMATS['json'](predictions)))] == [name] * 2


@pytest.mark.parametrize(
    ('paths', 'titles'),
    [
        (['a/0000.png', 'b/0000.png', 'b/1.png'], ['a/0000.png', 'b/0000.png', '1.png']),
        (['x/a/0.png', 'y/a/0.png', 'x/b/0.png'], ['x/a/0.png', 'y/a/0.png', 'b/0.png']),
        (['0.png', 'a/0.png', '/0.png'], ['0.png', 'a/0.png', '/0.png']),
        (['a/0.png', 'a/0.png'], ['0.png', '0.png']),
        (['-', '', ''], ['-', '', '']),
        ([], []),
    ],
)
def test_titles_are_the_shortest_paths_that_tell_images_apart(paths, titles):
    assert shortest_names(paths) == titles


def test_numbers_have_the_digits_of_a_float32():
    prediction = Prediction('a', (Guess(0, 'x', float(np.float32(0.1))),))
    assert json.loads(''.join(FORMATS['json']([prediction])))[0]['top_k'][0]['probability'] == 0.1


def test_a_long_list_is_logged(trained, digits, tmp_path, capsys, caplog):
    caplog.set_level('INFO', logger='absl')
    config = config_of(trained.checkpoint_path, digits[0], top_k=1)
    assert predicting.predict(config) == 0
    assert capsys.readouterr().out.count('\n') == 720
    lines = [line for line in caplog.messages if 'rediction [' in line]
    assert len(lines) == 10
    assert lines[-1].startswith('Prediction [360/360]')


def test_standard_input_is_an_image_or_a_list(trained, digits, monkeypatch, capsys):
    paths = sorted(digits[1])[:2]
    for data, expected in [
        ('\n'.join(paths).encode(), [*paths, 'after.png']),
        (Path(paths[0]).read_bytes(), ['-', 'after.png']),
        (b'', ['-', 'after.png']),
    ]:
        monkeypatch.setattr(sys, 'stdin', SimpleNamespace(buffer=io.BytesIO(data)))
        predicting.predict(config_of(trained.checkpoint_path, '-', 'after.png', format='json'))
        rows = json.loads(capsys.readouterr().out)
        assert [row['path'] for row in rows] == expected
        assert rows[0].get('error') == (None if data else 'the file is empty')
        assert rows[-1]['error'] == 'no such file'


def test_a_page_shows_images_as_the_net_sees_them(trained, digits, tmp_path):
    path = str(tmp_path / 'seen.png')
    images = [*sorted(digits[1])[:3], tmp_path / 'ä$x^2$\u4e2d.png']
    assert predicting.predict(config_of(trained.checkpoint_path, *images, visualize=path)) == 1
    assert sorted(item.name for item in tmp_path.iterdir()) == ['seen.png']
    with Image.open(path) as page:
        assert 400 < page.width < 800
        assert 500 < page.height < 900
        tile = np.asarray(page.convert('L'))[: page.height // 2, : page.width // 2]
    assert tile.min() < 20
    assert 0.05 < np.mean(tile == 255) < 0.95


@pytest.mark.full
def test_a_page_shows_the_first_64(trained, digits, tmp_path, caplog):
    caplog.set_level('INFO', logger='absl')
    path = str(tmp_path / 'seen.jpg')
    out = str(tmp_path / 'out.txt')
    assert predicting.predict(config_of(trained.checkpoint_path, digits[0], visualize=path, output_path=out)) == 0
    assert f'{path} shows the first 64 of 360 images' in caplog.messages
    with Image.open(path) as page:
        assert page.width / page.height == pytest.approx(2.4 / 3.1, rel=0.01)
        assert 1500 < page.width < 4000


# ------------------------------------------------------------------------ what is refused before there is any work


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'output_path': '{tmp}/none/out.txt'}, r'--output_path=.*out.txt: folder .*none does not exist$'),
        ({'output_path': '{tmp}'}, r'--output_path=.*: cannot write a file there$'),
        ({'output_path': ''}, r'--output_path=: cannot write a file there$'),
        (
            {'output_path': '{tmp}/' + 'x' * 250},
            r'--output_path=.*: the name x{16}\.\.\. has 250 bytes; at most \d+ can be written',
        ),
        ({'visualize': '{tmp}/' + 'é' * 124 + '.png'}, r'--visualize=.*: the name é{16}\.\.\. has 252 bytes'),
        ({'visualize': '{tmp}/out.xyz'}, r'--visualize=.*: the name must end in one of .png, .jpg, .pdf, .svg$'),
        ({'visualize': '{tmp}/none/out.png'}, r'--visualize=.*: folder .* does not exist'),
        ({'images': ()}, r'--images: none given'),
        ({'checkpoint_path': '{tmp}/none'}, r'--checkpoint_path=.*: no such'),
        ({'devices': 'gpu'}, r'--devices=gpu: TensorFlow sees no GPU'),
    ],
)
def test_what_cannot_work_is_refused(trained, tmp_path, capsys, options, message):
    given = {name: value.format(tmp=tmp_path) if isinstance(value, str) else value for name, value in options.items()}
    given = {'checkpoint_path': trained.checkpoint_path, 'images': ('a.png',), **given}
    with pytest.raises(InputError, match=message):
        predicting.predict(make_config(PredictConfig, **given))
    assert capsys.readouterr().out == ''
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(('option', 'value'), [('top_k', 0), ('batch_size', 0), ('format', 'xml'), ('devices', 'tpu')])
def test_values_outside_what_an_option_allows(option, value):
    with pytest.raises(InputError, match=f'--{option}={value}: must be '):
        make_config(PredictConfig, **{option: value})


def test_a_file_that_was_there_is_unharmed(trained, digits, tmp_path, monkeypatch):
    """Whatever happens while images are classified."""
    path = tmp_path / 'out.txt'
    path.write_text('before')

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Predictor, '_top_k', fail)
    with pytest.raises(KeyboardInterrupt):
        predicting.predict(config_of(trained.checkpoint_path, digits[0], output_path=str(path)))
    assert path.read_text() == 'before'
    assert len(list(tmp_path.iterdir())) == 1


# ------------------------------------------------------------------------ the command line


ODD = ('a b,c.jpg', ' ', '', '\udcff', 'new\nline', '=', 'a=b')


@pytest.mark.parametrize(
    ('arguments', 'images'),
    [
        (['a.jpg', '--top_k=2', 'b.jpg'], ('a.jpg', 'b.jpg')),
        (['--top_k', '2', 'a.jpg', '-'], ('a.jpg', '-')),
        (['-', '--top_k=2', '--use_grayscale', 'a.jpg'], ('-', 'a.jpg')),
        (['--top_k=2', '--', '-a.jpg', '--top_k=3'], ('-a.jpg', '--top_k=3')),
        (['--images=a.jpg,b.jpg', '--top_k=2', 'c.jpg'], ('a.jpg', 'b.jpg', 'c.jpg')),
        ([*ODD, '--top_k=2'], ODD),
    ],
)
def test_images_and_flags_in_any_order(parse, arguments, images):
    config = parse(PredictConfig, *arguments, positional='images')
    assert config.prediction.images == images
    assert config.output.top_k == 2


SCRIPT = [sys.executable, str(ROOT / 'predict_image_classifier.py')]


@pytest.mark.parametrize(
    ('arguments', 'status', 'message'),
    [
        ([], 2, 'error: no images given; see predict_image_classifier.py --help'),
        (['a.jpg', '--topk=3'], 2, "error: Unknown command line flag 'topk'. Did you mean: top_k ?"),
        (['a.jpg', '--top_k=0'], 1, 'error: --top_k=0: must be at least 1'),
    ],
)
def test_a_wrong_command_is_one_line(arguments, status, message):
    finished = run_python('predict_image_classifier.py', *arguments)
    assert (finished.returncode, finished.stdout) == (status, '')
    assert finished.stderr.startswith(message)
    assert finished.stderr.count('\n') == 1


def test_the_script(trained, odd):
    """A list through standard input and an image behind it, flags last."""
    finished = subprocess.run(
        [*SCRIPT, '-', odd[4], '--format=json', f'--checkpoint_path={trained.checkpoint_path}', '--top_k=1'],
        input=b'\0'.join(map(os.fsencode, [*odd[:2], odd[5], ''])),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 1
    rows = json.loads(finished.stdout)
    assert [row['path'] for row in rows] == [*odd[:2], odd[5], odd[4]]
    assert [row.get('error') for row in rows] == [None, None, ERRORS['cut.png'], None]
    assert finished.stderr.decode() == 'error: 1 of 4 images could not be used; the output says why\n'


@pytest.mark.full
def test_the_script_ends_with_its_reader(trained, digits):
    command = [*SCRIPT, *[str(digits[0])] * 5, '--top_k=10', f'--checkpoint_path={trained.checkpoint_path}']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == min(digits[1])
        process.stdout.close()
        assert process.stderr is not None
        assert 'Traceback' not in process.stderr.read()
        assert process.wait(60) == 141


def test_the_home_folder_is_known_to_programs_too(trained, monkeypatch):
    folder, name = os.path.split(trained.checkpoint_path)
    monkeypatch.setenv('HOME', folder)
    assert Predictor(f'~/{name}').classifier.step == 300
