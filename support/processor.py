"""The cores and instructions of this machine's processor, and every `auto` that depends on them.

    use_onednn()                       # before TensorFlow is imported: every package that imports it does so first
    processor = this_processor()
    processor.name, processor.has_bfloat16, processor.choices.fast_convolutions

The choices stand in `CHOICES`, with what was measured for each; `make bench-kernels` measures them again.
"""

import dataclasses
import functools
import os
import platform
from collections.abc import Collection, Mapping

_ONEDNN = 'TF_ENABLE_ONEDNN_OPTS'
# The variable, and its older name, that keep oneDNN from instructions which the processor has.
_LIMITS = ('ONEDNN_MAX_CPU_ISA', 'DNNL_MAX_CPU_ISA')
_X86_64 = ('x86_64', 'amd64')


@dataclasses.dataclass(frozen=True)
class Choices:
    """The fastest kernels for a set of instructions.

    Attributes:
        fast_convolutions: Whether Winograd's filtering beats oneDNN's 3x3 and 5x5 convolutions in float32.
        bfloat16_products: Whether nine matrix products give the kernel's gradient in bfloat16 faster than oneDNN, and
            add up in float32.
        bfloat16_speed: Images a second of a training step in bfloat16, over those in float32: alexnet_v2, batch 32.
    """

    fast_convolutions: bool
    bfloat16_products: bool
    bfloat16_speed: float


@dataclasses.dataclass(frozen=True)
class Processor:
    """The instructions and the library that kernels use.

    Attributes:
        name: The most capable set of instructions: a key of `CHOICES`.
        onednn: Whether TensorFlow is told to compute with oneDNN.
    """

    name: str
    onednn: bool

    @property
    def has_bfloat16(self) -> bool:
        """Whether the processor has bfloat16 arithmetic that TensorFlow's kernels use."""
        return self.onednn and self.name in ('AVX-512 BF16', 'AMX')

    @property
    def choices(self) -> Choices:
        """The fastest kernels for these instructions."""
        return CHOICES[self.name if self.onednn else 'without oneDNN']


# Measured on an AMD EPYC (Zen 4), 2026-11-30, with what each has: docs/performance.md, "Processors". AMX: on an Intel
# Xeon, 2026-11-26. There is no column for XLA, with which a step is slower on all of them, nor for threads: as
# many as cores, TensorFlow's own choice, are fastest on all.
CHOICES = {
    'without oneDNN': Choices(fast_convolutions=True, bfloat16_products=False, bfloat16_speed=0.07),
    'unknown': Choices(fast_convolutions=True, bfloat16_products=False, bfloat16_speed=0.07),
    'AVX': Choices(fast_convolutions=True, bfloat16_products=False, bfloat16_speed=0.07),
    'AVX2': Choices(fast_convolutions=True, bfloat16_products=False, bfloat16_speed=0.04),
    'AVX-512': Choices(fast_convolutions=True, bfloat16_products=True, bfloat16_speed=0.23),
    'AVX-512 VNNI': Choices(fast_convolutions=True, bfloat16_products=True, bfloat16_speed=0.23),
    'AVX-512 BF16': Choices(fast_convolutions=True, bfloat16_products=True, bfloat16_speed=0.97),
    'AMX': Choices(fast_convolutions=True, bfloat16_products=True, bfloat16_speed=1.3),
}
# Name, the flags of /proc/cpuinfo that are needed beside those above, and oneDNN's names for it. In rising order.
_INSTRUCTIONS: tuple[tuple[str, frozenset[str], tuple[str, ...]], ...] = (
    ('AVX', frozenset({'avx'}), ('AVX', 'SSE41')),
    ('AVX2', frozenset({'avx2', 'fma'}), ('AVX2', 'AVX2_VNNI', 'AVX2_VNNI_2')),
    ('AVX-512', frozenset({'avx512f', 'avx512bw', 'avx512dq', 'avx512vl'}), ('AVX512_CORE',)),
    ('AVX-512 VNNI', frozenset({'avx512_vnni'}), ('AVX512_CORE_VNNI',)),
    ('AVX-512 BF16', frozenset({'avx512_bf16'}), ('AVX512_CORE_BF16', 'AVX512_CORE_FP16', 'AVX10_1_512')),
    ('AMX', frozenset({'amx_tile', 'amx_bf16'}), ()),  # whatever limit names more
)
UNKNOWN = 'unknown'  # another architecture, or a system without /proc/cpuinfo


def use_onednn() -> None:
    """Lets TensorFlow compute with oneDNN, unless the user has set the variable. Call it before TensorFlow is imported.

    By itself TensorFlow does so on x86-64 only where the processor has AVX512-VNNI; with AVX2 alone its own kernels
    take 1.5 to 2 times as long. Elsewhere, as on Arm, TensorFlow's own choice stays: it was not measured here.
    """
    if platform.machine().lower() in _X86_64:
        os.environ.setdefault(_ONEDNN, '1')


@functools.cache
def this_processor() -> Processor:
    """Returns the processor of this machine, within the limits that environment variables set."""
    return find_processor(_cpu_flags(), os.environ)


def find_processor(flags: Collection[str], environment: Mapping[str, str]) -> Processor:
    """Returns the processor that has these flags, within the limits of an environment.

    Args:
        flags: As in /proc/cpuinfo.
        environment: Variables that limit oneDNN, or turn it off.
    """
    given, name = set(flags), UNKNOWN
    limit = next((environment[variable].upper() for variable in _LIMITS if variable in environment), None)
    for instructions, needed, names in _INSTRUCTIONS:
        if not needed <= given:
            break
        name = instructions
        if limit in names:
            break
    return Processor(name, onednn=environment.get(_ONEDNN, '').lower() in ('1', 'true'))


def usable_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _cpu_flags() -> set[str]:
    try:
        with open('/proc/cpuinfo') as file:
            lines = [line for line in file if line.startswith('flags')]
    except OSError:
        return set()
    return set(lines[0].partition(':')[2].split()) if lines else set()
