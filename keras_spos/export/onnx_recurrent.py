"""How recurrent layers are written in ONNX: one node each, one per direction.

ONNX has time before the batch, all gates in one matrix, and gates in another order.
"""

import keras
import numpy as np
from keras import layers

from keras_spos.export.onnx_functions import (
    UnsupportedLayerError,
    activation_name,
    take,
)

# Operator of ONNX; ONNX's gates as parts of Keras' kernels.
_CELLS = {
    layers.SimpleRNN: ("RNN", (0,)),
    layers.GRU: ("GRU", (0, 1, 2)),  # Update, reset, candidate.
    layers.LSTM: ("LSTM", (0, 3, 1, 2)),  # Input, output, forget, candidate.
}
# Not Softplus, of which ONNX Runtime makes inf inside these nodes: log(1 + exp(x)).
_ACTIVATIONS = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "softsign": "Softsign",
    "tanh": "Tanh",
}
_MERGES = {"sum": "Add", "mul": "Mul", "ave": "Add"}


def recurrent(g, layer, shape, x):
    """Writes a call without masks or states of a recurrent layer; see `onnx_layers`."""
    if layer.go_backwards and layer.return_sequences:
        raise UnsupportedLayerError("go_backwards=True with return_sequences=True.")
    return _run(g, layer, x, "layer")


def bidirectional(g, layer, shape, x):
    """Writes `Bidirectional`, without masks or states."""
    ways = layer.forward_layer, layer.backward_layer
    for way in ways:
        if type(way) not in _CELLS:
            raise UnsupportedLayerError(f"it holds a {type(way).__name__}.")
    if ways[0].go_backwards:
        raise UnsupportedLayerError("its forward layer has go_backwards=True.")
    outputs = [
        _run(g, way, x, label)
        for way, label in zip(ways, ("forward", "backward"), strict=True)
    ]
    if layer.merge_mode is None:
        return outputs
    names, (order, _) = zip(*outputs, strict=True)
    if layer.merge_mode == "concat":
        return g.add("Concat", names, axis=len(order) - 1), order
    name = g.add(_MERGES[layer.merge_mode], names)
    if layer.merge_mode == "ave":
        name = g.add("Mul", [name, g.constant(0.5, "half")])
    return name, order


def _run(g, layer, x, label):
    """Outputs of all steps, or of the last, and the order of their axes."""
    for name in ("stateful", "return_state"):
        if getattr(layer, name):
            raise UnsupportedLayerError(f"{name}=True.")
    op_type, gates = _CELLS[type(layer)]
    cell = layer.cell

    def constant(array, kind):
        """Columns in the order of ONNX's gates, for one direction."""
        parts = np.split(array, len(gates), axis=-1)
        array = np.concatenate([parts[i] for i in gates], axis=-1)
        return g.constant(array.T[None], f"{label}_{kind}")

    array = keras.ops.convert_to_numpy
    inputs = [
        g.arrange(x, (1, 0, 2)),
        constant(array(cell.kernel), "kernel"),
        constant(array(cell.recurrent_kernel), "recurrent_kernel"),
    ]
    if cell.use_bias:
        # ONNX adds one to the inputs' product and one to the states'.
        biases = np.atleast_2d(array(cell.bias))
        pair = [biases[0], biases[1] if len(biases) > 1 else 0 * biases[0]]
        parts = [np.split(bias, len(gates)) for bias in pair]
        both = np.concatenate([part[i] for part in parts for i in gates])
        inputs.append(g.constant(both[None], f"{label}_bias"))
    settings = {}
    if op_type == "GRU":
        settings["linear_before_reset"] = int(cell.reset_after)
    name = g.add(
        op_type,
        inputs,
        hidden_size=cell.units,
        direction="reverse" if layer.go_backwards else "forward",
        activations=_activations(op_type, cell),
        **settings,
    )
    # [time, directions, n, units], as if directions were the last of Keras' axes.
    name, order = take(g, name, (1, 3, 0, 2), 3, 0)
    if layer.return_sequences:
        return name, order
    return take(g, name, order, 1, 0 if layer.go_backwards else -1)


def _activations(op_type, cell):
    inner = [] if op_type == "RNN" else [cell.recurrent_activation]
    outer = [cell.activation] * (2 if op_type == "LSTM" else 1)
    found = []
    for function in [*inner, *outer]:
        name = activation_name(function)
        if name not in _ACTIVATIONS:
            raise UnsupportedLayerError(f"activation {name!r}.")
        found.append(_ACTIVATIONS[name])
    return found


WRITERS = {
    **dict.fromkeys(_CELLS, recurrent),
    layers.Bidirectional: bidirectional,
}
