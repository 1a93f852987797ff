"""The project as a library: every block of docs/library.md runs, and log lines are shown unless one says otherwise."""

import os
import re
import subprocess

import pytest

from tests.scripts import ROOT, run_python

PAGE = ROOT / 'docs' / 'library.md'


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_python('-c', program, **{'PYTHONPATH': str(ROOT), **environment})


@pytest.mark.full
def test_every_block_of_the_page_runs(tmp_path):
    blocks = re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 11
    program = '\n'.join(blocks).replace('/tmp/library', f'{tmp_path}/library')
    finished = run(program, XDG_CACHE_HOME=str(tmp_path / 'cache'))
    assert finished.returncode == 0, finished.stderr
    (accuracy,) = re.findall(r'^(0\.\d+) [01]\.\d+$', finished.stdout, re.MULTILINE)
    assert float(accuracy) > 0.5
    assert 'no such file' in finished.stdout
    said = finished.stderr
    assert said.count('lenet on digits, split train: 1437 examples of 10 classes, 28 px, lenet preprocessing\n') == 1
    assert re.search(r'^finished at step \d+; evaluate it with: ', said, re.MULTILINE)
    noise = [
        line for line in said.splitlines() if re.match(r'[IW]\d{4} |WARNING: All log|To enable the following', line)
    ]
    assert not noise


LOG = "import datasets\nfrom absl import logging\n{}\nlogging.info('one %d', 1)\nlogging.warning('two')"
STDLIB = 'import logging as stdlib\n'
# Name -> what the program says before the import, and after it, and what is then shown.
PROGRAMS = {
    'nothing': ('', '', 'one 1\nwarning: two\n'),
    'twice': ('', 'import nets, engine', 'one 1\nwarning: two\n'),
    'a format, before': (STDLIB + "stdlib.basicConfig(format='<%(message)s>')", '', '<two>\n'),
    'a format, after': ('', STDLIB + "stdlib.basicConfig(format='<%(message)s>')", '<two>\n'),
    'a format and a level': (
        '',
        STDLIB + "stdlib.basicConfig(format='<%(message)s>', level='INFO')",
        '<one 1>\n<two>\n',
    ),
    'a level of the logger, after': ('', STDLIB + "stdlib.getLogger('absl').setLevel('ERROR')", ''),
    'a level of the logger, before': (
        STDLIB + "import absl.logging\nstdlib.getLogger('absl').setLevel('ERROR')",
        '',
        '',
    ),
    'verbosity, before': ('from absl import logging\nlogging.set_verbosity(logging.ERROR)', '', ''),
    'verbosity, after': ('', 'logging.set_verbosity(logging.ERROR)', ''),
    "absl's handler": (
        '',
        'logging.use_absl_handler()\nlogging.get_absl_handler().setFormatter(None)',
        'WARNING: Logging before flag parsing goes to stderr.\ntwo\n',
    ),
    'a handler of its own': (
        "import logging as stdlib, sys\nstdlib.getLogger('absl').addHandler(stdlib.NullHandler())\n"
        "stdlib.getLogger('absl').propagate = False",
        '',
        '',
    ),
}


@pytest.mark.parametrize('name', PROGRAMS)
def test_log_lines_are_shown_as_the_program_says(name):
    before, after, expected = PROGRAMS[name]
    finished = run(f'{before}\n{LOG.format(after)}')
    assert (finished.returncode, finished.stderr) == (0, expected)


def test_what_loading_tensorflow_writes_is_shown_if_it_fails(tmp_path):
    (tmp_path / 'tensorflow.py').write_text("import os\nos.write(2, b'noise\\n')\nraise ImportError('broken')\n")
    finished = run('import datasets\nimport tensorflow', PYTHONPATH=f'{tmp_path}{os.pathsep}{ROOT}')
    assert finished.returncode == 1
    assert 'noise\n' in finished.stderr
    assert finished.stderr.endswith('ImportError: broken\n')
    (tmp_path / 'tensorflow.py').write_text("import os\nos.write(2, b'noise\\n')\n")
    finished = run('import datasets\nimport tensorflow', PYTHONPATH=f'{tmp_path}{os.pathsep}{ROOT}')
    assert (finished.returncode, finished.stderr) == (0, '')
