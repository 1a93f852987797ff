"""What each operator of ONNX adds to a chain of steps; the names that are not in the table are of other nets.

state = State(Chain(224, 224, 3), Constants(file), layout='NCHW', batch=1)
add_node(state, Node(0, file.model.graph.node[0]), 'data_0')
"""

from collections.abc import Callable

import numpy as np

from importing.chain import Pair, Sides
from importing.onnx_state import NCHW, NHWC, Node, OtherNodeError, State
from nets.pooling import averaging_matrix

AXES = {NCHW: (2, 3), NHWC: (1, 2)}  # of height and width
TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
UNCHANGED = ('Dropout', 'Identity')
_FLOAT = 1  # onnx.TensorProto.FLOAT


def add_node(state: State, node: Node, data: str) -> None:
    """Adds to the chain what a node makes of the values.

    Args:
        state: Where the walk is; it is changed.
        node: The node.
        data: Name of the values among its inputs.

    Raises:
        OtherNodeError: no net of ours does that.
        InputError: weights are missing or damaged.
    """
    add = _ADD.get(node.op)
    position = 1 if node.op == 'MatMul' and state.columns is not None else 0
    if add is None or (node.inputs[position] != data and node.op != 'Add'):
        raise OtherNodeError('is computed')
    if state.columns is not None and node.op != 'MatMul':
        raise OtherNodeError('takes averages of columns')
    add(state, node)


def _convolve(state: State, node: Node) -> None:
    state.need_images()
    kernel = state.weights(node, 1, rank=4).transpose(2, 3, 1, 0)
    values = {'kernel': kernel}
    if node.has_input(2):
        values['bias'] = state.weights(node, 2, rank=1)
    state.chain.convolve(
        node.where,
        kernel.shape,
        strides=_pair(node, 'strides'),
        padding=_padding(node),
        groups=node.get('group', 1),
        dilations=_pair(node, 'dilations'),
        values=values,
    )


def _pair(node: Node, name: str) -> Pair:
    value = node.integers(name, (1, 1))
    if len(value) != 2 or min(value) < 1:
        raise OtherNodeError(f'has {name} {list(value)}')
    return value[0], value[1]


def _padding(node: Node) -> Sides | str:
    automatic = node.get('auto_pad', 'NOTSET')
    if automatic in ('SAME_UPPER', 'SAME_LOWER'):
        return automatic
    pads = node.integers('pads', (0, 0, 0, 0)) if automatic == 'NOTSET' else (0, 0, 0, 0)
    if len(pads) != 4 or min(pads) < 0:
        raise OtherNodeError(f'has pads {list(pads)}')
    return pads[0], pads[1], pads[2], pads[3]


def _max_pool(state: State, node: Node) -> None:
    state.need_images()
    size, strides, dilations = (_pair(node, name) for name in ('kernel_shape', 'strides', 'dilations'))
    state.chain.max_pool(node.where, size, strides, _padding(node), bool(node.get('ceil_mode', 0)), dilations)


def _average_pool(state: State, node: Node) -> None:
    state.need_images()
    size, strides = _pair(node, 'kernel_shape'), _pair(node, 'strides')
    state.chain.average_pool(node.where, size, strides, _padding(node), bool(node.get('ceil_mode', 0)))


def _global_average_pool(state: State, node: Node) -> None:
    state.need_images()
    height, width, _ = state.chain.extent
    state.chain.average_pool(node.where, (height, width), (1, 1), (0, 0, 0, 0))


def _reduce_mean(state: State, node: Node) -> None:
    axes = state.numbers(node, 1, 'axes')
    state.need_images(state.layout)
    if axes is None or tuple(axis % 4 for axis in axes) != AXES[state.layout]:
        raise OtherNodeError(f'averages over the axes {axes}')
    height, width, _ = state.chain.extent
    state.chain.average_pool(node.where, (height, width), (1, 1), (0, 0, 0, 0))
    state.is_flat = not node.get('keepdims', 1)


def _normalize_response(state: State, node: Node) -> None:
    state.need_images()
    alpha, beta, bias = node.get('alpha', 1e-4), node.get('beta', 0.75), node.get('bias', 1.0)
    state.chain.normalize_response(node.where, node.get('size', 0), alpha, beta, bias)


def _normalize_batch(state: State, node: Node) -> None:
    state.need_images()
    if node.get('training_mode', 0):
        raise OtherNodeError('is in training mode')
    names = ('gamma', 'beta', 'moving_mean', 'moving_variance')
    values = {name: state.weights(node, position, rank=1) for position, name in enumerate(names, start=1)}
    state.chain.normalize_batch(node.where, len(values['gamma']), node.get('epsilon', 1e-5), values)


def _connect(state: State, node: Node, kernel: np.ndarray, bias: np.ndarray | None) -> None:
    """Adds a fully connected layer with a kernel [inputs, units], whose inputs lie as the values did before."""
    if not state.is_flat:
        raise OtherNodeError(f'takes {state.layout}')
    height, width, channels = state.chain.extent
    inputs, units = kernel.shape
    if state.layout == NCHW and inputs == state.chain.size:
        kernel = kernel.reshape(channels, height, width, units).transpose(1, 2, 0, 3).reshape(inputs, units)
    state.chain.connect(node.where, inputs, units, {'kernel': kernel} | ({} if bias is None else {'bias': bias}))


def _gemm(state: State, node: Node) -> None:
    if node.get('transA', 0):
        raise OtherNodeError('transposes the values')
    kernel = state.weights(node, 1, rank=2)
    kernel = _scaled(kernel.T if node.get('transB', 0) else kernel, node.get('alpha', 1.0))
    bias = None
    if node.has_input(2):
        given = _scaled(state.constants.weights(node.inputs[2], state.where), node.get('beta', 1.0))
        if given.size not in (1, kernel.shape[1]) or given.shape[-1:] not in ((), (given.size,)):
            raise OtherNodeError(f'adds {list(given.shape)}')
        bias = np.broadcast_to(given.reshape(-1), (kernel.shape[1],))
    _connect(state, node, kernel, bias)


def _scaled(values: np.ndarray, factor: float) -> np.ndarray:
    return values if factor == 1 else values * np.float32(factor)


def _matmul(state: State, node: Node) -> None:
    if state.is_flat:
        _connect(state, node, state.weights(node, 1, rank=2), None)
    else:
        _average_regions(state, node)


def _average_regions(state: State, node: Node) -> None:
    """Two products with constants, of the columns and then of the rows, as this project exports adaptive pooling."""
    state.need_images()
    height, width, _ = state.chain.extent
    is_second = state.columns is not None
    matrix = state.weights(node, 0 if is_second else 1, rank=2)
    matrix = matrix if is_second else matrix.T
    count, side = matrix.shape
    if side != (height if is_second else width) or not np.allclose(matrix, averaging_matrix(side, count), atol=1e-6):
        raise OtherNodeError('is a product of images')
    if state.columns is None:
        state.columns = count
    else:
        state.chain.average_regions(node.where, count, state.columns)
        state.columns = None


def _add(state: State, node: Node) -> None:
    """A bias that is added by a node of its own."""
    values = [state.constants.get(name) for name in node.inputs]
    position = 0 if values[0] is not None else 1
    if values[position] is None:
        raise OtherNodeError('adds two results, a branch')
    bias = state.constants.weights(node.inputs[position], state.where)
    axis = 3 if not state.is_flat and state.layout == NCHW else 1  # of the channels, from the end
    fits = bias.ndim >= axis and bias.size == bias.shape[-axis] == state.chain.extent[2]
    if not fits or not state.chain.add_bias(bias.reshape(-1)):
        raise OtherNodeError(f'adds {list(bias.shape)}')


def _pad(state: State, node: Node) -> None:
    state.need_images()
    pads = state.numbers(node, 1, 'pads')
    value = state.constants.get(node.inputs[2]) if node.has_input(2) else np.float32(node.get('value', 0.0))
    is_constant = node.get('mode', 'constant') == 'constant' and value is not None and not np.any(value)
    around_images = pads is not None and len(pads) == 8 and min(pads) >= 0 and not any(pads[:2] + pads[4:6])
    if pads is None or not (is_constant and around_images) or node.has_input(3):
        raise OtherNodeError('pads otherwise than with zeros around the images')
    state.chain.pad((pads[2], pads[3], pads[6], pads[7]))


def _transpose(state: State, node: Node) -> None:
    perm = node.integers('perm')
    if state.is_flat or perm not in (TO_NHWC, TO_NCHW) or (perm == TO_NHWC) != (state.layout == NCHW):
        raise OtherNodeError(f'transposes {list(perm)}')
    state.layout = NHWC if perm == TO_NHWC else NCHW


def _flatten(state: State, node: Node) -> None:
    axis = node.get('axis', 1)
    if axis % len(state.shape) != 1:
        raise OtherNodeError(f'flattens from axis {axis}')
    state.is_flat = True


def _reshape(state: State, node: Node) -> None:
    sizes = state.numbers(node, 1, 'shape') or ()
    height, width, channels = state.chain.extent
    batches = (0, -1, state.batch)
    if len(sizes) == 2 and sizes[0] in batches and sizes[1] in (-1, state.chain.size):
        state.is_flat = True
    elif (height, width) == (1, 1) and sizes[1:] in ((channels, 1, 1), (1, 1, channels)) and sizes[0] in batches:
        state.is_flat, state.layout = False, NCHW if sizes[1] == channels else NHWC
    else:
        raise OtherNodeError(f'reshapes to {list(sizes)}')


def _squeeze(state: State, node: Node) -> None:
    axes = state.numbers(node, 1, 'axes')
    if state.is_flat or axes is None or tuple(sorted(axis % 4 for axis in axes)) != AXES[state.layout]:
        raise OtherNodeError(f'squeezes the axes {axes}')
    state.is_flat = True


def _cast(state: State, node: Node) -> None:
    if node.get('to', 0) != _FLOAT:
        raise OtherNodeError('casts to another type than float32')


def _softmax(state: State, node: Node) -> None:
    axis = node.get('axis', -1 if state.is_flat else 1)
    channels = 1 if state.is_flat else state.layout.index('C')
    if axis % len(state.shape) != channels:
        raise OtherNodeError(f'is over axis {axis}')
    state.chain.softmax(node.where)


def _nothing(state: State, node: Node) -> None:
    if node.op == 'Dropout' and node.has_input(2) and np.any(state.constants.get(node.inputs[2])):
        raise OtherNodeError('is in training mode')


_ADD: dict[str, Callable[[State, Node], None]] = {
    'Add': _add,
    'AveragePool': _average_pool,
    'BatchNormalization': _normalize_batch,
    'Cast': _cast,
    'Conv': _convolve,
    'Flatten': _flatten,
    'Gemm': _gemm,
    'GlobalAveragePool': _global_average_pool,
    'LRN': _normalize_response,
    'LogSoftmax': _softmax,
    'MatMul': _matmul,
    'MaxPool': _max_pool,
    'Pad': _pad,
    'ReduceMean': _reduce_mean,
    'Relu': lambda state, node: state.chain.relu(node.where),
    'Reshape': _reshape,
    'Softmax': _softmax,
    'Squeeze': _squeeze,
    'Transpose': _transpose,
    **dict.fromkeys(UNCHANGED, _nothing),
}
