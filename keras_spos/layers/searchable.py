"""What every searchable layer offers to the supernet: decisions, and what they run.

A searchable layer stands for several plain layers, of which a path picks one. The
supernet finds searchable layers in graph order, reads its search space off them, and
runs, counts and extracts what a path picks. A new kind of decision (a width, a bit
pair, a subset of paths) is a new subclass; nothing else changes.
"""

import keras
from keras import ops


class SearchableLayer(keras.layers.Layer):
    """Base of layers whose computation is picked by one or more integers.

    Subclasses define `decisions`, `picked` and `plain`, and call `add_choice_weights`
    at the end of `build`.

    The current choice is a weight, so it is saved with the model and a traced
    function sees it change. Training never reads it: the engine passes the sampled
    choice as Python integers.
    """

    @property
    def decisions(self):
        """The `Decision`s that this layer depends on, in order.

        Layers that name the same decision share one integer of the path.
        """
        raise NotImplementedError

    def picked(self, choices):
        """Returns the layer that `choices` (one integer per decision) runs."""
        raise NotImplementedError

    def plain(self, choices):
        """Returns the stock layer or model that `choices` stands for once extracted."""
        return self.picked(choices)

    def add_choice_weights(self):
        """Creates the integer weights that hold the current choice."""
        self.choices = [
            self.add_weight(
                name=f"choice_{i}",
                shape=(),
                dtype="int32",
                initializer="zeros",
                trainable=False,
                autocast=False,
            )
            for i in range(len(self.decisions))
        ]

    def call_choice(self, choices, *args, training=None, **kwargs):
        """Runs what `choices` (Python integers) picks, and nothing else."""
        layer = self.picked(choices)
        if layer._call_has_training_arg:
            kwargs["training"] = training
        return layer(*args, **kwargs)

    def call(self, inputs, training=None):
        """Runs the current choice."""
        static = [_static_integer(c) for c in self.choices]
        if None not in static:
            return self.call_choice(tuple(static), inputs, training=training)
        return self._switch(inputs, training)

    def _switch(self, inputs, training):
        """Runs the current choice inside somebody's traced function.

        Every branch runs in a `StatelessScope` and hands back what it would have
        assigned (JAX cannot take side effects out of a branch), so that batch norm
        statistics of the branch taken are updated and no others.
        """
        sizes = [len(d.options) for d in self.decisions]
        picks = [()]
        for size in sizes:
            picks = [p + (i,) for p in picks for i in range(size)]
        layers = [self.picked(p) for p in picks]
        variables = _unique(v for layer in layers for v in layer.variables)
        state = [v for v in variables if not v.trainable] if training else []

        def branch(choices):
            def run(x):
                mapping = [(v, ops.convert_to_tensor(v)) for v in variables]
                with keras.StatelessScope(state_mapping=mapping) as scope:
                    y = self.call_choice(choices, x, training=training)
                return y, [scope.get_current_value(v) for v in state]

            return run

        index = ops.convert_to_tensor(self.choices[0])
        for choice, size in zip(self.choices[1:], sizes[1:], strict=True):
            index = index * size + ops.convert_to_tensor(choice)
        outputs, values = ops.switch(index, [branch(p) for p in picks], inputs)
        for variable, value in zip(state, values, strict=True):
            variable.assign(value)
        return outputs

    def compute_output_spec(self, inputs, training=None):
        """Shape and type of the output, which all options share."""
        first = self.picked((0,) * len(self.decisions))
        return first.compute_output_spec(inputs)


def _unique(items):
    return list({id(item): item for item in items}.values())


def _static_integer(variable):
    """Value of an integer variable, or None while a function is being traced."""
    value = ops.convert_to_tensor(variable)
    if keras.backend.backend() == "jax":
        import jax

        return None if isinstance(value, jax.core.Tracer) else int(value)
    import tensorflow as tf

    return int(value) if tf.executing_eagerly() else None
