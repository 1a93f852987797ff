"""Compares instruction sets of a processor: oneDNN off and on, and the choices of `support.processor`.

    tables = dict(kernels(place))
    tables['kernels AVX2 works']['ratios']['step float32 32: oneDNN on / off']['median']

A processor stands in for lesser ones: libraries' environment variables restrict every contestant's instructions.
Eigen, which TensorFlow uses where oneDNN is off, uses AVX2 and FMA on all of them.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from bench_tables import EAGER, EVAL_BATCH, PRODUCT_GFLOP, SIDE, Table, Tables, make_table, our_step
from ratios import Ask, summarize_ratios
from rounds import ROOT, Contestant, Place, measure

from configs.options import flat_options, from_flagfile
from configs.training import TrainConfig
from support.processor import CHOICES, this_processor

# Instruction set -> variables that restrict oneDNN (in TensorFlow and PyTorch), XLA, and PyTorch's own kernels to it.
LIMITS: dict[str, dict[str, str]] = {
    'AVX2': {
        'ONEDNN_MAX_CPU_ISA': 'AVX2',
        'XLA_FLAGS': '--xla_cpu_max_isa=AVX2',
        'ATEN_CPU_CAPABILITY': 'avx2',
        'MKL_ENABLE_INSTRUCTIONS': 'AVX2',
    },
    'AVX-512': {'ONEDNN_MAX_CPU_ISA': 'AVX512_CORE', 'XLA_FLAGS': '--xla_cpu_max_isa=AVX512'},
    'AVX-512 BF16': {'ONEDNN_MAX_CPU_ISA': 'AVX512_CORE_BF16'},
    'AMX': {},
}
_WITHOUT_BFLOAT16 = 'AVX2'  # TensorFlow computes it without oneDNN: restricted to AVX2, oneDNN fails instead
_OFF, _ON = 'oneDNN off', 'oneDNN on'
_WITHOUT, _WITH = {'TF_ENABLE_ONEDNN_OPTS': '0'}, {'TF_ENABLE_ONEDNN_OPTS': '1'}
_RECIPE = os.path.join(ROOT, 'configs', 'alexnet_v2_digits.cfg')


def kernels(place: Place) -> Tables:
    """Measures workloads with AVX2 and all own instructions, and the choices with each instruction set."""
    own = this_processor().name
    order = list(CHOICES)
    for name in [*(name for name in LIMITS if order.index(name) < order.index(own)), own]:
        limits = {} if name == own else LIMITS[name]
        if name in ('AVX2', own):
            yield f'kernels {name} works', _works(place, name, limits)
        yield f'kernels {name} choices', _choices(place, name, limits)


def _works(place: Place, name: str, limits: Mapping[str, str]) -> Table:
    speeds: dict[str, list[float]] = {}
    asks = []
    for ours, theirs in _list_works(place):
        work, kinds = ours.name, {_OFF: _WITHOUT, _ON: _WITH}
        if 'bfloat16' in work and name == _WITHOUT_BFLOAT16:
            kinds.pop(_ON)
        contestants = [
            dataclasses.replace(ours, name=f'{work}: {which}', environment={**limits, **onednn})
            for which, onednn in kinds.items()
        ]
        asks.append(Ask(f'{work}: {_ON} / off', f'{work}: {_ON}', (f'{work}: {_OFF}',)))
        if theirs is not None:
            contestants.append(dataclasses.replace(theirs, name=f'{work}: {EAGER}', environment=limits))
            asks.append(Ask(f'{work}: {_ON} / {EAGER}', f'{work}: {_ON}', (f'{work}: {EAGER}',)))
        speeds |= measure(contestants, place, f'kernels_{name}_{work}'.replace(' ', '_'))
    title = f'oneDNN off and on, with instructions up to {name}'
    return make_table(title, 'images/s; of products, GFLOP/s', speeds, summarize_ratios(speeds, asks), digits=1)


def _list_works(place: Place) -> list[tuple[Contestant, Contestant | None]]:
    """Returns this project's contestant for each workload, and PyTorch's or None."""
    works: list[tuple[Contestant, Contestant | None]] = []
    for dtype, batch_size, per_turn in (('float32', 32, 6), ('float32', 128, 2), ('bfloat16', 32, 1)):
        name, turn = f'step {dtype} {batch_size}', {'per_turn': per_turn, 'unit': batch_size, 'warmup': 2}
        theirs = {'batch_size': batch_size, 'dtype': dtype}
        works.append(
            (
                Contestant(name, 'with_engine.py', 'step', our_step(batch_size, dtype), **turn),
                Contestant(name, 'with_torch.py', 'eager', theirs, **turn),
            )
        )
    changed = {
        name: value
        for name, value in from_flagfile(TrainConfig, open(_RECIPE).read()).items()  # noqa: SIM115
        if value != flat_options(TrainConfig)[name].default
    }
    works.append((Contestant('digits recipe', 'with_engine.py', 'train', changed, per_turn=20, unit=32), None))
    validation = {'dataset_name': 'imagenet', 'dataset_dir': place.imagenet_dir, 'batch_size': EVAL_BATCH}
    works.append((Contestant('evaluation', 'with_engine.py', 'eval', validation, per_turn=3, unit=40), None))
    product, turn = {'side': SIDE, 'dtype': 'float32'}, {'per_turn': 5, 'unit': PRODUCT_GFLOP}
    ours, theirs = (
        Contestant('matrix product', script, 'product', product, **turn)
        for script in ('with_keras.py', 'with_torch.py')
    )
    return [*works, (ours, theirs)]


def _choices(place: Place, name: str, limits: Mapping[str, str]) -> Table:
    """Measures the training step with its default choices, and with each choice reversed."""
    environment, turn = {**limits, **_WITH}, {'per_turn': 2, 'unit': 32, 'warmup': 2}
    half = str(max(len(os.sched_getaffinity(0)) // 2, 1))
    variants: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
        'float32': ({}, {}),
        'float32, fast convolutions off': ({'fast_convolutions': 'off'}, {}),
        'float32, XLA': ({'xla': 'on'}, {}),
        'float32, half the threads': ({}, {'TF_NUM_INTRAOP_THREADS': half}),
        'bfloat16': ({'mixed_precision': 'bfloat16'}, {}),
        'bfloat16, fast convolutions off': ({'mixed_precision': 'bfloat16', 'fast_convolutions': 'off'}, {}),
    }
    if name == _WITHOUT_BFLOAT16:
        variants.pop('bfloat16, fast convolutions off')
        variants['bfloat16'] = ({'mixed_precision': 'bfloat16'}, _WITHOUT)
    contestants = [
        Contestant(
            variant, 'with_engine.py', 'step', our_step(32, **options), environment={**environment, **more}, **turn
        )
        for variant, (options, more) in variants.items()
    ]
    speeds = measure(contestants, place, f'kernels_{name}_choices'.replace(' ', '_'))
    asks = [
        Ask(f'{dtype} / {other}', dtype, (other,))
        for other in variants
        for dtype in ('float32', 'bfloat16')
        if other.startswith(f'{dtype},')
    ]
    asks.append(Ask('bfloat16 / float32', 'bfloat16', ('float32',)))
    title = f'A training step of alexnet_v2, batches of 32, with instructions up to {name}'
    return make_table(title, 'images/s', speeds, summarize_ratios(speeds, asks), digits=1)
