"""Slim's seven optimizers (TF1's update rules) and two for large batches, on TensorFlow's fused kernels.

    optimizer = make_optimizer(options)
    with strategy.scope():
        optimizer.build(variables, weight_decays)      # both by variable name
    optimizer.apply(gradients, learning_rate)          # in each replica; gradients are reduced over replicas

The kernels save most passes over memory compared with tensor operations. They take resource handles. In a replica
context, a mirrored variable's handle is the replica's own: every replica applies the same update to its copy, so the
copies stay equal. The kernels also compile with XLA.
"""

import re
from collections.abc import Mapping
from typing import TypeAlias

import keras
import tensorflow as tf

from configs.training import OptimizerOptions
from support.errors import unknown_name

Handle: TypeAlias = tf.Tensor  # scalar of dtype tf.resource


def resource_handle(variable: keras.Variable | tf.Variable) -> Handle:
    """Returns the handle of a variable; in a replica context, of this replica's copy."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


def read(handle: Handle) -> tf.Tensor:
    """Returns a handle's float32 value, after all earlier writes in program order."""
    return tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)


def euclidean_norm(value: tf.Tensor) -> tf.Tensor:
    """Returns the float32 scalar `sqrt(sum(value^2))`."""
    return tf.sqrt(2.0 * tf.nn.l2_loss(value))  # reads once; tf.norm writes the squares first


class Optimizer:
    """Base of the update rules: slots, weight decay and clipping.

    Attributes:
        slots: The rule's variables by their names in slim's checkpoints, e.g. `alexnet_v2/fc8/weights/RMSProp_1`.
            Filled by `build`.
    """

    def __init__(self, options: OptimizerOptions) -> None:
        self.options = options
        self.slots: dict[str, tf.Variable] = {}
        self._variables: dict[str, keras.Variable | tf.Variable] = {}
        self._weight_decays: dict[str, float] = {}

    def slot_starts(self) -> dict[str, float]:
        """Returns the initial value of each slot of a variable by TF1's name, in the order of `update`."""
        return {}

    def power_bases(self) -> dict[str, float]:
        """Returns the base of each power that the rule uses, base^t in step t, by TF1's name."""
        return {}

    def update(self, variable: Handle, slots: list[Handle], gradient: tf.Tensor, rate: tf.Tensor) -> None:
        """Updates one variable and its slots, all given as handles."""
        raise NotImplementedError

    def build(self, variables: Mapping[str, keras.Variable | tf.Variable], weight_decays: Mapping[str, float]) -> None:
        """Creates the slots. Call this in the variables' strategy scope.

        Args:
            variables: The float32 variables to train, by name.
            weight_decays: L2 factors by variable name; may include variables that are not trained.
        """
        self._variables = dict(variables)
        self._weight_decays = {name: decay for name, decay in weight_decays.items() if decay and name in variables}
        starts = {name: ((), base) for name, base in self.power_bases().items()}
        for name, variable in variables.items():
            for slot, start in self.slot_starts().items():
                starts[f'{name}/{slot}'] = (tuple(variable.shape), start)
        self.slots = {
            name: tf.Variable(tf.fill(shape, tf.constant(start, tf.float32)), trainable=False, name=name)
            for name, (shape, start) in starts.items()
        }

    def apply(self, gradients: Mapping[str, tf.Tensor], learning_rate: tf.Tensor) -> None:
        """Updates all variables once. Call this in a replica context, inside a `tf.function`.

        Args:
            gradients: float32 gradients of the loss without its L2 part, by variable name, equal on all replicas.
            learning_rate: float32 scalar.
        """
        totals = self.total_gradients(gradients)
        if self.options.clip_gradient_norm:
            totals = clip_by_global_norm(totals, self.options.clip_gradient_norm)
        # Once the gradient of the preceding variable is computed, no other gradient needs this variable. An earlier
        # update would find its buffer in use and copy it: 100 MB for fc6.
        for name, before in zip(self._variables, [None, *self._variables], strict=False):
            with tf.control_dependencies([gradients[before]] if before else []):
                self.update_variable(name, totals[name], learning_rate)
        for name, base in self.power_bases().items():
            power = self._slot(name)
            tf.raw_ops.AssignVariableOp(resource=power, value=read(power) * base)

    def update_variable(self, name: str, gradient: tf.Tensor, rate: tf.Tensor) -> None:
        """Updates the named variable. Rules that differ between variables override this."""
        self.update(self._variable(name), self._slots_of(name), gradient, rate)

    def total_gradients(self, gradients: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the gradient of the total loss for every variable: `gradient + weight_decay * variable`.

        The second term is the derivative of slim's `weight_decay * sum(w^2) / 2` (`tf_slim/layers/regularizers.py`).
        """
        # Measured with RMSProp, 49 M parameters, 2 cores: 39-59 ms with this sum, 23-39 without; with the whole update
        # as one XLA function, 48-50.
        totals = dict(gradients)
        for name, decay in self._weight_decays.items():
            with tf.control_dependencies([gradients[name]]):  # or the product would take memory from the start
                decayed = decay * read(self._variable(name))
            totals[name] += decayed
        return totals

    def _variable(self, name: str) -> Handle:
        return resource_handle(self._variables[name])

    def _slots_of(self, name: str) -> list[Handle]:
        return [self._slot(f'{name}/{slot}') for slot in self.slot_starts()]

    def _slot(self, name: str) -> Handle:
        return resource_handle(self.slots[name])


def clip_by_global_norm(gradients: Mapping[str, tf.Tensor], clip_norm: float) -> dict[str, tf.Tensor]:
    """Scales all gradients by one factor so that their joint Euclidean norm is at most `clip_norm`.

    If the norm is not finite, all gradients become NaN, which shows in the next loss.
    """
    clipped, _ = tf.clip_by_global_norm(list(gradients.values()), clip_norm)
    return dict(zip(gradients, clipped, strict=True))


class Adadelta(Optimizer):
    """`a = rho*a + (1-rho)*g^2; u = g*sqrt(b+eps)/sqrt(a+eps); b = rho*b + (1-rho)*u^2; w -= rate*u`."""

    def slot_starts(self) -> dict[str, float]:
        return {'Adadelta': 0.0, 'Adadelta_1': 0.0}

    def update(self, variable: Handle, slots: list[Handle], gradient: tf.Tensor, rate: tf.Tensor) -> None:
        squares, squared_updates = slots
        tf.raw_ops.ResourceApplyAdadelta(
            var=variable, accum=squares, accum_update=squared_updates, grad=gradient, lr=rate,
            rho=self.options.adadelta_rho, epsilon=self.options.opt_epsilon,
        )  # fmt: skip


class Adagrad(Optimizer):
    """`a += g^2; w -= rate*g/sqrt(a)`: TF1's, without an epsilon."""

    def slot_starts(self) -> dict[str, float]:
        return {'Adagrad': self.options.adagrad_initial_accumulator_value}

    def update(self, variable: Handle, slots: list[Handle], gradient: tf.Tensor, rate: tf.Tensor) -> None:
        (squares,) = slots
        tf.raw_ops.ResourceApplyAdagrad(var=variable, accum=squares, grad=gradient, lr=rate)


class Adam(Optimizer):
    """`w -= rate*sqrt(1-beta2^t)/(1-beta1^t) * m/(sqrt(v)+eps)`: "epsilon hat" of arXiv:1412.6980."""

    def slot_starts(self) -> dict[str, float]:
        return {'Adam': 0.0, 'Adam_1': 0.0}

    def power_bases(self) -> dict[str, float]:
        return {'beta1_power': self.options.adam_beta1, 'beta2_power': self.options.adam_beta2}

    def update(self, variable: Handle, slots: list[Handle], gradient: tf.Tensor, rate: tf.Tensor) -> None:
        first_moment, second_moment = slots
        tf.raw_ops.ResourceApplyAdam(
            var=variable, m=first_moment, v=second_moment, grad=gradient, lr=rate,
            beta1=self.options.adam_beta1, beta1_power=read(self._slot('beta1_power')),
            beta2=self.options.adam_beta2, beta2_power=read(self._slot('beta2_power')),
            epsilon=self.options.opt_epsilon,
        )  # fmt: skip


class Ftrl(Optimizer):
    """FTRL-proximal of McMahan et al. 2013, "Ad Click Prediction: a View from the Trenches", algorithm 1."""

    def slot_starts(self) -> dict[str, float]:
        return {'Ftrl': self.options.ftrl_initial_accumulator_value, 'Ftrl_1': 0.0}

    def update(self, variable: Handle, slots: list[Handle], gradient: tf.Tensor, rate: tf.Tensor) -> None:
        squares, linear = slots
        tf.raw_ops.ResourceApplyFtrl(
            var=variable, accum=squares, linear=linear, grad=gradient, lr=rate, l1=self.options.ftrl_l1,
            l2=self.options.ftrl_l2, lr_power=self.options.ftrl_learning_rate_power,
        )  # fmt: skip


class Momentum(Optimizer):
    """`a = momentum*a + g; w -= rate*a`: the rate stays outside the accumulator, unlike in Keras."""

    def slot_starts(self) -> dict[str, float]:
        return {'Momentum': 0.0}

    def update(self, variable: Handle, slots: list[Handle], gradient: tf.Tensor, rate: tf.Tensor) -> None:
        (velocity,) = slots
        tf.raw_ops.ResourceApplyMomentum(
            var=variable, accum=velocity, grad=gradient, lr=rate, momentum=self.options.momentum
        )


class SGD(Optimizer):
    """`w -= rate*g`."""

    def update(self, variable: Handle, slots: list[Handle], gradient: tf.Tensor, rate: tf.Tensor) -> None:
        tf.raw_ops.ResourceApplyGradientDescent(var=variable, alpha=rate, delta=gradient)


class RMSProp(Optimizer):
    """`s = decay*s + (1-decay)*g^2; a = momentum*a + rate*g/sqrt(s+eps); w -= a`, where s starts at 1."""

    def slot_starts(self) -> dict[str, float]:
        return {'RMSProp': 1.0, 'RMSProp_1': 0.0}

    def update(self, variable: Handle, slots: list[Handle], gradient: tf.Tensor, rate: tf.Tensor) -> None:
        mean_square, velocity = slots
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable, ms=mean_square, mom=velocity, grad=gradient, lr=rate,
            rho=self.options.rmsprop_decay, momentum=self.options.rmsprop_momentum,
            epsilon=self.options.opt_epsilon,
        )  # fmt: skip


class LayerwiseOptimizer(Optimizer):
    """Base of the rules for large batches, which scale each variable's rate by its own trust ratio.

    The ratio is 1 for variables that `trust_ratio_exclude` matches, and if a norm in it is 0: a weight of 0 would
    otherwise never change. Weight decay is part of these rules, because their ratios treat it separately.
    """

    def __init__(self, options: OptimizerOptions) -> None:
        super().__init__(options)
        self._excluded = [re.compile(pattern) for pattern in options.trust_ratio_exclude]

    def total_gradients(self, gradients: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the gradients without weight decay, so that clipping does not include it."""
        return dict(gradients)

    def update_variable(self, name: str, gradient: tf.Tensor, rate: tf.Tensor) -> None:
        excluded = any(pattern.search(name) for pattern in self._excluded)
        self.update_layer(
            self._variable(name), self._slots_of(name), gradient, rate, self._weight_decays.get(name, 0.0), not excluded
        )

    def update_layer(
        self, variable: Handle, slots: list[Handle], gradient: tf.Tensor, rate: tf.Tensor, decay: float, adapts: bool
    ) -> None:
        """Updates one variable with its L2 factor, and with a trust ratio if `adapts`."""
        raise NotImplementedError


def _unless_zero(ratio: tf.Tensor, *norms: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.reduce_all(tf.stack(norms) > 0.0), ratio, 1.0)


class LARS(LayerwiseOptimizer):
    """`v = momentum*v + rate*r*(g + decay*w); w -= v` with `r = eta*|w|/(|g| + decay*|w|)`.

    Source: You, Gitman, Ginsburg 2017, "Large Batch Training of Convolutional Networks", arXiv:1708.03888, algorithm 1.
    The slot holds -v, as in Keras, whose kernel keeps the rate inside the accumulator.
    """

    # Measured, 50 M parameters with decay, 2 cores, fastest of 7: 74 ms; with the gradient scaled for TF1's kernel,
    # 88 ms; the momentum optimizer, 59 ms.

    def slot_starts(self) -> dict[str, float]:
        return {'LARS': 0.0}

    def update_layer(
        self, variable: Handle, slots: list[Handle], gradient: tf.Tensor, rate: tf.Tensor, decay: float, adapts: bool
    ) -> None:
        (velocity,) = slots
        weights = read(variable)
        if adapts:
            weight_norm, gradient_norm = euclidean_norm(weights), euclidean_norm(gradient)
            ratio = self.options.lars_eta * weight_norm / (gradient_norm + decay * weight_norm)
            rate *= _unless_zero(ratio, weight_norm, gradient_norm)
        if decay:
            gradient += decay * weights
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable, accum=velocity, grad=gradient, lr=rate, momentum=self.options.momentum
        )


class LAMB(LayerwiseOptimizer):
    """`w -= rate*|w|/|u|*u` with `u = m/(1-beta1^t) / (sqrt(v/(1-beta2^t)) + eps) + decay*w`, Adam's m and v.

    Source: You et al. 2019, "Large Batch Optimization for Deep Learning", arXiv:1904.00962, algorithm 2, with the
    identity as its phi.
    """

    def slot_starts(self) -> dict[str, float]:
        return {'LAMB': 0.0, 'LAMB_1': 0.0}

    def power_bases(self) -> dict[str, float]:
        return {'beta1_power': self.options.adam_beta1, 'beta2_power': self.options.adam_beta2}

    def update_layer(
        self, variable: Handle, slots: list[Handle], gradient: tf.Tensor, rate: tf.Tensor, decay: float, adapts: bool
    ) -> None:
        first_moment, second_moment = slots
        beta1_power, beta2_power = read(self._slot('beta1_power')), read(self._slot('beta2_power'))
        # At rate 0 Adam's kernel updates only the moments. Measured like LARS: 152 ms; tensor operations only, 223;
        # an XLA function per variable, 163, after 2.5 s of compiling; adam, 79.
        tf.raw_ops.ResourceApplyAdam(
            var=variable, m=first_moment, v=second_moment, grad=gradient, lr=0.0, beta1=self.options.adam_beta1,
            beta1_power=beta1_power, beta2=self.options.adam_beta2, beta2_power=beta2_power, epsilon=1.0,
        )  # fmt: skip
        # Both moments' bias corrections are folded into scalars, which saves two passes over memory.
        correction = tf.sqrt(1.0 - beta2_power) / (1.0 - beta1_power)
        epsilon = self.options.lamb_epsilon * tf.sqrt(1.0 - beta2_power)
        update = read(first_moment) / (tf.sqrt(read(second_moment)) + epsilon)
        weights = read(variable)
        if decay:
            update += decay / correction * weights
        rate *= correction
        if adapts:
            weight_norm, update_norm = euclidean_norm(weights), correction * euclidean_norm(update)
            rate *= _unless_zero(weight_norm / update_norm, weight_norm, update_norm)
        tf.raw_ops.ResourceApplyGradientDescent(var=variable, alpha=rate, delta=update)


OPTIMIZERS: dict[str, type[Optimizer]] = {
    'adadelta': Adadelta,
    'adagrad': Adagrad,
    'adam': Adam,
    'ftrl': Ftrl,
    'momentum': Momentum,
    'sgd': SGD,
    'rmsprop': RMSProp,
    'lars': LARS,
    'lamb': LAMB,
}


def make_optimizer(options: OptimizerOptions) -> Optimizer:
    """Returns the optimizer named by `options.optimizer`; slim's are configured as in its `_configure_optimizer`.

    Raises:
        InputError: the name is unknown.
    """
    if options.optimizer not in OPTIMIZERS:
        raise unknown_name('optimizer', options.optimizer, OPTIMIZERS)
    return OPTIMIZERS[options.optimizer](options)
