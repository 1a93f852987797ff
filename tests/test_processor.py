"""What is chosen by the processor, and that TensorFlow computes with oneDNN whoever imports it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from engine.distributed import kernels
from nets.layers import convolutions
from support.processor import CHOICES, Processor, find_processor

ROOT = Path(__file__).parents[1]
PACKAGES = ('datasets', 'engine', 'export', 'importing', 'nets', 'preprocessing')
AVX2 = {'avx', 'avx2', 'fma'}
AVX512 = AVX2 | {'avx512f', 'avx512bw', 'avx512dq', 'avx512vl'}
BF16 = AVX512 | {'avx512_vnni', 'avx512_bf16'}
AMX = BF16 | {'amx_tile', 'amx_bf16', 'amx_int8'}
ON = {'TF_ENABLE_ONEDNN_OPTS': '1'}


@pytest.mark.parametrize(
    ('flags', 'environment', 'expected'),
    [
        ({'avx'}, ON, Processor('AVX', True)),
        (AVX2, ON, Processor('AVX2', True)),
        (AVX512, ON, Processor('AVX-512', True)),
        (AVX512 | {'avx512_vnni'}, ON, Processor('AVX-512 VNNI', True)),
        (BF16, ON, Processor('AVX-512 BF16', True)),
        (AMX, ON, Processor('AMX', True)),
        (AMX, {}, Processor('AMX', False)),
        (AMX, {'TF_ENABLE_ONEDNN_OPTS': '0'}, Processor('AMX', False)),
        (AMX, {**ON, 'ONEDNN_MAX_CPU_ISA': 'AVX2'}, Processor('AVX2', True)),
        (AMX, {**ON, 'ONEDNN_MAX_CPU_ISA': 'avx512_core_bf16'}, Processor('AVX-512 BF16', True)),
        (AMX, {**ON, 'DNNL_MAX_CPU_ISA': 'AVX512_CORE'}, Processor('AVX-512', True)),
        (AMX, {**ON, 'ONEDNN_MAX_CPU_ISA': 'DEFAULT'}, Processor('AMX', True)),
        (AVX2, {**ON, 'ONEDNN_MAX_CPU_ISA': 'AVX512_CORE'}, Processor('AVX2', True)),
        (set(), ON, Processor('unknown', True)),
    ],
)
def test_what_a_processor_computes_with(flags: set[str], environment: dict[str, str], expected: Processor) -> None:
    assert find_processor(flags, environment) == expected


@pytest.mark.parametrize(
    ('name', 'onednn', 'has_bfloat16'),
    [
        ('unknown', True, False),
        ('AVX2', True, False),
        ('AVX-512', True, False),
        ('AVX-512 BF16', True, True),
        ('AMX', True, True),
        ('AMX', False, False),
    ],
)
def test_who_has_bfloat16(name: str, onednn: bool, has_bfloat16: bool) -> None:
    processor = Processor(name, onednn)
    assert processor.has_bfloat16 == has_bfloat16
    assert processor.choices in CHOICES.values()
    assert (processor.choices.bfloat16_speed > 0.9) == has_bfloat16


@pytest.mark.skipif(os.uname().machine != 'x86_64', reason="elsewhere the choice is TensorFlow's own")
@pytest.mark.parametrize(('given', 'expected'), [(None, '1'), ('0', '0'), ('1', '1')])
@pytest.mark.parametrize('package', PACKAGES)
def test_every_package_turns_onednn_on_unless_told_otherwise(package: str, given: str | None, expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != 'TF_ENABLE_ONEDNN_OPTS'}
    code = f'import os, sys, {package}; print(os.environ["TF_ENABLE_ONEDNN_OPTS"], "tensorflow" in sys.modules)'
    finished = subprocess.run(
        [sys.executable, '-c', code],
        cwd=ROOT,
        env=environment | ({} if given is None else {'TF_ENABLE_ONEDNN_OPTS': given}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.split() == [expected, 'False']


@pytest.mark.parametrize(
    ('processor', 'precision', 'expected'),
    [
        (
            Processor('AVX2', True),
            'bfloat16',
            r'this processor \(AVX2\) has no bfloat16 arithmetic: bfloat16 takes about',
        ),
        (Processor('AVX-512 VNNI', True), 'bfloat16', 'has no bfloat16 arithmetic'),
        (Processor('AMX', True), 'bfloat16', None),
        (Processor('AVX2', True), 'float32', None),
        (Processor('AVX2', True), 'float16', 'float16 is very slow on CPUs; float32 is not'),
        (Processor('AMX', True), 'float16', 'float16 is very slow on CPUs; bfloat16 is not'),
    ],
)
def test_slow_precision_is_warned_of(
    processor: Processor,
    precision: str,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(kernels, 'this_processor', lambda: processor)
    kernels.set_precision(precision, tf.distribute.OneDeviceStrategy('CPU:0'))
    assert len(caplog.messages) == (expected is not None)
    assert expected is None or re.search(expected, caplog.text)


@pytest.mark.parametrize('name', CHOICES)
def test_bfloat16_is_never_summed_in_bfloat16(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow's own kernels add up in bfloat16; oneDNN's, which need AVX-512, in float32."""
    monkeypatch.setattr(convolutions, 'this_processor', lambda: Processor(name, name != 'without oneDNN'))
    inputs, kernel = tf.zeros([1, 8, 8, 64], tf.bfloat16), tf.zeros([3, 3, 64, 64], tf.bfloat16)
    with convolutions.fast_convolutions():
        chosen = convolutions.choose(inputs, kernel)
    assert chosen in (None, convolutions.convolve_with_products)
    assert chosen is None or name.startswith(('AVX-512', 'AMX'))
