"""The cores and instruction sets of this machine's processor, and every `auto` setting that depends on them.

    use_onednn()                       # before TensorFlow is imported: every package that imports it calls this first
    processor = this_processor()
    processor.name, processor.has_bfloat16, processor.choices.fast_convolutions

`CHOICES` holds the choices and their measurements; `make bench-kernels` measures them again.
"""

import dataclasses
import functools
import os
import platform
from collections.abc import Collection, Mapping

_ONEDNN = 'TF_ENABLE_ONEDNN_OPTS'
# The variable that limits oneDNN's instruction set below the processor's, and its older name.
_LIMITS = ('ONEDNN_MAX_CPU_ISA', 'DNNL_MAX_CPU_ISA')
_X86_64 = ('x86_64', 'amd64')


@dataclasses.dataclass(frozen=True)
class Choices:
    """The fastest kernels for an instruction set.

    Attributes:
        fast_convolutions: Whether Winograd's filtering beats oneDNN's 3x3 and 5x5 convolutions in float32.
        bfloat16_products: Whether nine matrix products, summed in float32, compute the kernel's gradient in bfloat16
            faster than oneDNN.
        bfloat16_speed: Images/s of a training step in bfloat16, relative to float32: alexnet_v2, batch 32.
    """

    fast_convolutions: bool
    bfloat16_products: bool
    bfloat16_speed: float


@dataclasses.dataclass(frozen=True)
class Processor:
    """The instruction set and the library that kernels use.

    Attributes:
        name: The most capable instruction set: a key of `CHOICES`.
        onednn: Whether TensorFlow is set to compute with oneDNN.
    """

    name: str
    onednn: bool

    @property
    def has_bfloat16(self) -> bool:
        """Whether the processor has bfloat16 arithmetic that TensorFlow's kernels use."""
        return self.onednn and self.name in ('AVX-512 BF16', 'AMX')

    @property
    def choices(self) -> Choices:
        """The fastest kernels for this instruction set."""
        return CHOICES[self.name if self.onednn else 'without oneDNN']


# Measured on an AMD EPYC (Zen 4), 2026-11-30, limited to each instruction set: docs/performance.md, "Processors". AMX:
# on an Intel Xeon, 2026-11-26. XLA has no column because it slows a step on all of them; nor have threads, because
# TensorFlow's default, as many as cores, is fastest on all.
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
# Name, the flags of /proc/cpuinfo needed in addition to the rows above, and oneDNN's names for it. In rising order.
_INSTRUCTIONS: tuple[tuple[str, frozenset[str], tuple[str, ...]], ...] = (
    ('AVX', frozenset({'avx'}), ('AVX', 'SSE41')),
    ('AVX2', frozenset({'avx2', 'fma'}), ('AVX2', 'AVX2_VNNI', 'AVX2_VNNI_2')),
    ('AVX-512', frozenset({'avx512f', 'avx512bw', 'avx512dq', 'avx512vl'}), ('AVX512_CORE',)),
    ('AVX-512 VNNI', frozenset({'avx512_vnni'}), ('AVX512_CORE_VNNI',)),
    ('AVX-512 BF16', frozenset({'avx512_bf16'}), ('AVX512_CORE_BF16', 'AVX512_CORE_FP16', 'AVX10_1_512')),
    ('AMX', frozenset({'amx_tile', 'amx_bf16'}), ()),  # no limit is needed: nothing follows
)
UNKNOWN = 'unknown'  # another architecture, or a system without /proc/cpuinfo


def use_onednn() -> None:
    """Turns on oneDNN in TensorFlow on x86-64, unless the user has set the variable. Call before importing TensorFlow.

    By default TensorFlow uses oneDNN on x86-64 only with AVX512-VNNI; with AVX2 alone its own kernels take 1.5 to 2
    times as long. On other architectures, such as Arm, TensorFlow's default stays: it was not measured here.
    """
    if platform.machine().lower() in _X86_64:
        os.environ.setdefault(_ONEDNN, '1')


@functools.cache
def this_processor() -> Processor:
    """Returns this machine's processor, within the limits set by environment variables."""
    return find_processor(_cpu_flags(), os.environ)


def find_processor(flags: Collection[str], environment: Mapping[str, str]) -> Processor:
    """Returns the processor with the given CPU flags, within the limits set by environment variables.

    Args:
        flags: As in /proc/cpuinfo.
        environment: Environment variables, which may limit oneDNN or turn it off.
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
