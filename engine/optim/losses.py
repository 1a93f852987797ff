"""Losses: cross-entropy per example, and L2 of the weights."""

from collections.abc import Mapping

import keras
import tensorflow as tf

from preprocessing.mixing import Targets


def softmax_cross_entropy(logits: tf.Tensor, labels: tf.Tensor, label_smoothing: float = 0.0) -> tf.Tensor:
    """Returns the cross-entropy of each example, as `slim.losses.softmax_cross_entropy` before its mean.

    An example with a label outside the classes (-1: unknown) has no loss and no gradient. In slim its target is all
    zero: the loss is 0 too, but the kernel assumes targets that sum to 1 and returns softmax(logits) as gradient.

    Args:
        logits: float32 [batch, classes].
        labels: Integers [batch].
        label_smoothing: The target is `one_hot * (1 - label_smoothing) + label_smoothing / classes`.

    Returns:
        float32 [batch].
    """
    classes = logits.shape[-1]
    labels = tf.convert_to_tensor(labels)
    valid = (labels >= 0) & (labels < classes)
    labels = tf.where(valid, labels, 0)
    if label_smoothing:
        share = label_smoothing / classes
        targets = tf.one_hot(labels, classes, on_value=1.0 - label_smoothing + share, off_value=share)
        losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
    else:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return tf.where(valid, losses, 0.0)


def mixed_cross_entropy(logits: tf.Tensor, targets: Targets, label_smoothing: float = 0.0) -> tf.Tensor:
    """Returns the cross-entropy of each example, for a mixed image with both its labels, else with its label.

    Cross-entropy is linear in the target, so it is the sum over both labels, weighted by their shares. A label outside
    the classes adds nothing.

    Args:
        logits: float32 [batch, classes].
        targets: Labels, and the labels that they are mixed with.
        label_smoothing: As in `softmax_cross_entropy`, for both labels.

    Returns:
        float32 [batch].
    """
    losses = softmax_cross_entropy(logits, targets.labels, label_smoothing)
    if targets.others is None or targets.shares is None:
        return losses
    others = softmax_cross_entropy(logits, targets.others, label_smoothing)
    return targets.shares * losses + (1 - targets.shares) * others


def l2_loss(variables: Mapping[str, keras.Variable | tf.Variable], weight_decays: Mapping[str, float]) -> tf.Tensor:
    """Returns slim's regularisation loss, the sum of `weight_decay * sum(w^2) / 2`.

    It is only reported: `engine.optim.optimizers` adds its gradient to each variable's.

    Args:
        variables: Variables by name; frozen ones count too, as in slim.
        weight_decays: Factors by variable name; variables without one do not count.

    Returns:
        float32 scalar.
    """
    decayed = ((tf.convert_to_tensor(variables[name]), decay) for name, decay in weight_decays.items())
    terms = [decay * tf.nn.l2_loss(value) for value, decay in decayed]
    return tf.add_n(terms) if terms else tf.constant(0.0)
