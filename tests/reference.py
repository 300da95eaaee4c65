"""What the engine must equal: the simple, slow way to train one path.

The stock model of the path runs the supernet's own layers. The optimizer updates every
variable of the supernet, with zero gradients off the path, as a `switch` would hand to
it; then whatever belongs to variables off the path is put back. No function is
compiled, no unit is cut.
"""

import keras
import numpy as np
from keras import ops
from models import cross_entropy, randomize

from keras_spos.layers import SearchableLayer


def shared_model(net, path):
    """The stock Functional model of a path, made of the supernet's own layers."""
    chosen = dict(zip((d.name for d in net.space.decisions), path, strict=True))
    inputs = [
        keras.Input(batch_shape=t.shape, dtype=t.dtype, name=f"again_{t.name}")
        for t in net.inputs
    ]
    tensors = dict(zip((id(t) for t in net.inputs), inputs, strict=True))
    for depth in sorted(net._nodes_by_depth, reverse=True):
        for node in net._nodes_by_depth[depth]:
            if node.is_input:
                continue
            layer = node.operation
            if isinstance(layer, SearchableLayer):
                layer = layer.picked(tuple(chosen[d.name] for d in layer.decisions))
            args, kwargs = node.arguments.fill_in(tensors)
            outputs = keras.tree.flatten(layer(*args, **kwargs))
            tensors.update(zip((id(t) for t in node.outputs), outputs, strict=True))
    return keras.Model(
        keras.tree.pack_sequence_as(net._inputs_struct, inputs),
        keras.tree.pack_sequence_as(
            net._outputs_struct, [tensors[id(t)] for t in net.outputs]
        ),
    )


class Reference:
    """Trains a supernet step by step, without its engine.

    Args:
        net: A `Supernet`. Its own weights are used.
        optimizer: An optimizer of its own.
        **losses: Arguments of `compile`: loss, loss_weights.
    """

    def __init__(self, net, optimizer, **losses):
        self.net = net
        self.optimizer = optimizer
        self.losses = losses
        self.models = {}
        self.step = 0
        optimizer.build(net.trainable_variables)
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        if inner.use_ema:
            # Keras' average is the weight itself at first; so it is for all options.
            averages = inner._model_variables_moving_average
            for average, v in zip(averages, net.trainable_variables, strict=True):
                average.assign(ops.copy(v.value))

    def train(self, path, x, y, sample_weight=None):
        """One training step on a path; returns the loss."""
        path = tuple(int(i) for i in path)
        if path not in self.models:
            model = shared_model(self.net, path)
            model.compile(**self.losses)
            self.models[path] = model
        model = self.models[path]
        _seed_random_layers(self.net, path, self.step)
        on_path = {id(v) for v in model.trainable_variables}
        loss, gradients = _gradients(
            model, self.optimizer.scale_loss, x, y, sample_weight
        )
        everything = self.net.trainable_variables
        full = [
            gradients[id(v)] if id(v) in on_path else ops.zeros(v.shape, v.dtype)
            for v in everything
        ]
        off_path = [v for v in everything if id(v) not in on_path]
        kept = off_path + slots_of(self.optimizer, off_path)
        before = [ops.copy(v.value) for v in kept]
        _apply(self.optimizer, full, everything)
        for variable, value in zip(kept, before, strict=True):
            variable.assign(value)
        self.step += 1
        return float(loss)


def slots_of(optimizer, variables):
    """The optimizer's variables that belong to some of the model's variables."""
    prefixes = tuple(f"{v.path.replace('/', '_')}_" for v in variables)
    own = [*optimizer.variables]
    return [s for s in own if s.name.startswith(prefixes)] if prefixes else []


def _seed_random_layers(net, path, step):
    """Gives dropout the seeds that the engine derives from (seed, step)."""
    engine = net.get_engine()
    for position, units in enumerate(engine.units(path)):
        for unit in units:
            for number, variable in enumerate(unit.non_trainable):
                if unit.is_seed[number]:
                    entropy = (net.seed, step, position, number)
                    words = np.random.SeedSequence(entropy).generate_state(2)
                    variable.assign(np.asarray(words, "uint32"))


def _gradients(model, scale, x, y, sample_weight):
    variables = model.trainable_variables

    def compute():
        y_pred = model(x, training=True)
        loss = model.compute_loss(x, y, y_pred, sample_weight, training=True)
        return loss, scale(loss)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss, scaled = compute()
        found = tape.gradient(scaled, variables)
    else:
        import jax

        state = model.non_trainable_variables

        def scaled_loss(trainable):
            mapping = [*zip(variables, trainable, strict=True)]
            mapping += [(v, v.value) for v in state]
            with keras.StatelessScope(mapping, collect_losses=True) as scope:
                loss, scaled = compute()
            return scaled, (loss, [scope.get_current_value(v) for v in state])

        found, (loss, new_state) = jax.grad(scaled_loss, has_aux=True)(
            [v.value for v in variables]
        )
        for variable, value in zip(state, new_state, strict=True):
            variable.assign(value)
    return loss, {id(v): g for v, g in zip(variables, found, strict=True)}


def _apply(optimizer, gradients, variables):
    if keras.backend.backend() == "tensorflow":
        optimizer.apply(gradients, variables)
        return
    new_variables, new_state = optimizer.stateless_apply(
        [v.value for v in optimizer.variables],
        gradients,
        [v.value for v in variables],
    )
    for variable, value in zip(
        [*variables, *optimizer.variables], [*new_variables, *new_state], strict=True
    ):
        variable.assign(value)


def assert_close(actual, expected, tolerance):
    """Compares the values of two lists of variables, and names what differs."""
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(a.value).astype("float32"),
            ops.convert_to_numpy(e.value).astype("float32"),
            rtol=tolerance,
            atol=tolerance,
            err_msg=a.path,
        )


def assert_trains_like_reference(
    build, optimizer, batches, tolerance=2e-5, loss=None, **compiled
):
    """Trains two nets, one with the engine and one without, and compares all.

    Args:
        build: Builds the net.
        optimizer: The optimizer.
        batches: Tuples (x, y) or (x, y, sample_weight).
        tolerance: Relative and absolute.
        loss: The loss; cross entropy by default.
        **compiled: Further arguments of `compile`.
    """
    net, other = randomize(build()), randomize(build())
    losses = {"loss": loss or cross_entropy(), **compiled}
    net.compile(optimizer, **losses)
    own = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(optimizer)
    )
    reference = Reference(other, own, **losses)
    paths = set()
    for step, batch in enumerate(batches):
        path = tuple(int(i) for i in net.draw(step))
        paths.add(path)
        logs = net.train_on_batch(*batch, return_dict=True)
        expected = reference.train(path, *batch)
        np.testing.assert_allclose(logs["loss"], expected, rtol=10 * tolerance)
    assert len(paths) > 1
    # Not `variables`: seeds of dropout are derived, not kept.
    assert_close(net.weights, other.weights, tolerance)
    assert_close(optimizer.variables, own.variables, tolerance)
    return net, other
