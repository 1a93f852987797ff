"""Slim's names for the variables of a model.

A model has the name of slim's scope and a layer the scopes inside it, with '.' in place of '/', which Keras
does not allow in a layer's name: in the model `InceptionV1`, the `kernel` of the layer
`Mixed_3b.Branch_0.Conv2d_0a_1x1` is `InceptionV1/Mixed_3b/Branch_0/Conv2d_0a_1x1/weights`.
"""

import keras

SEPARATOR = '.'

# Keras' names of variables -> slim's; those of batch normalisation are equal.
SLIM_NAMES = {
    'kernel': 'weights',
    'bias': 'biases',
    'depthwise_kernel': 'depthwise_weights',
    'pointwise_kernel': 'pointwise_weights',
}
_OF_DEPTHWISE = {**SLIM_NAMES, 'kernel': 'depthwise_weights'}


def slim_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns the model's variables by slim's names, from the first layer to the last.

    >>> list(slim_variables(make_model('lenet', 10)))[:2]
    ['LeNet/conv1/weights', 'LeNet/conv1/biases']
    """
    named = {}
    for layer in model.layers:
        scope = '/'.join([model.name, *layer.name.split(SEPARATOR)])
        names = _OF_DEPTHWISE if isinstance(layer, keras.layers.DepthwiseConv2D) else SLIM_NAMES
        for variable in layer.variables:
            named[f'{scope}/{names.get(variable.name, variable.name)}'] = variable
    return named
