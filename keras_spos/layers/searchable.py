"""What every searchable layer offers to the supernet: decisions, and what they run.

A searchable layer stands for several plain layers, of which a path picks one. The
supernet finds searchable layers in graph order, reads its search space off them, and
runs, counts and extracts what a path picks. A new kind of decision (a width, a bit
pair, a subset of paths) is a new subclass; nothing else changes.
"""

import warnings

import keras
from keras import ops
from keras.src.backend.common import global_state

from keras_spos.graph import unique
from keras_spos.weight_slice import whole

# A mask is an attribute of a tensor, which compiled functions do not return.
MASKED = (
    "The output of {!r} carries a Keras mask, which choice blocks do not hand on. Pass "
    "it as a tensor instead, or use it inside one option."
)


class SearchableLayer(keras.layers.Layer):
    """Base of layers whose computation is picked by one or more integers.

    Subclasses define `decisions` and `picked`, and call `add_choice_weights` at the end
    of `build`.

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

    def stages(self, choices):
        """Returns what `choices` runs as stages, which are compiled one by one.

        A list of lists of layers. The layers of a stage all run on its input, their
        outputs are added, and the sum goes to the next stage. Every choice has the same
        number of stages. Together they compute what `picked` computes.

        One stage by default. A layer whose choices are combinations of a few parts
        returns the parts: what is compiled grows with the parts, not the combinations.
        """
        return [[self.picked(choices)]]

    def views(self, choices):
        """Returns what the variables of the picked layers stand for.

        A dict from the id of such a variable to a `WeightSlice` of a variable that this
        layer owns; empty if the variables are this layer's own. Variables that stand
        for others need no values: create them inside `weight_slice.placeholders()`. The
        same choices get the same `WeightSlice` objects each time.
        """
        return {}

    def sources(self, choices):
        """What `choices` reads: variables, or `WeightSlice`s of them."""
        views = self.views(choices)
        return [views.get(id(v), v) for v in self.picked(choices).variables]

    def add_choice_weights(self):
        """Creates the integer weights that hold the current choice."""
        self.choices = [
            self.add_weight(
                name=f"choice_{i}",
                shape=(),
                dtype="int32",
                initializer="zeros",
                trainable=False,
            )
            for i in range(len(self.decisions))
        ]

    def run_part(self, layer, *args, training=None, **kwargs):
        """Runs one of the layers that a choice is made of."""
        # Whether it takes `training` or hands it on to layers inside it.
        return layer(*args, training=training, **kwargs)

    def call_choice(self, choices, inputs, training=None):
        """Runs what `choices` (Python integers) picks, and nothing else."""
        layer, sources = self.picked(choices), self.sources(choices)
        if all(a is b for a, b in zip(layer.variables, sources, strict=True)):
            return self.run_part(layer, inputs, training=training)
        # Read before the scope begins: scopes do not look into those around them.
        values = [ops.convert_to_tensor(s.value) for s in sources]
        mapping = list(zip(layer.variables, values, strict=True))
        with keras.StatelessScope(mapping, initialize_variables=False) as scope:
            outputs = self.run_part(layer, inputs, training=training)
            state = [scope.get_current_value(v) for v in layer.variables]
        for source, old, new in zip(sources, values, state, strict=True):
            if new is not old:
                source.assign(new)
        return outputs

    def call(self, inputs, training=None):
        """Runs the current choice."""
        if training:
            _warn_of_a_plain_model()
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
        variables = unique(whole(v) for p in picks for v in self.sources(p))
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


def _warn_of_a_plain_model():
    """Warns if a model that draws no paths is what is called in training mode.

    On JAX that is not known: Keras' training calls `model.call`, past this context.
    """
    context = global_state.get_global_attribute("current_call_ctx")
    model = getattr(context, "entry_layer", None)
    if isinstance(model, keras.Model) and not hasattr(model, "set_path"):
        warnings.warn(
            f"{type(model).__name__} {model.name!r} trains one path of its searchable "
            "layers alone, the current one. A keras_spos.Supernet draws paths: make "
            "it of the same inputs and outputs.",
            stacklevel=2,
        )


def _static_integer(variable):
    """Value of an integer variable, or None while a function is being traced."""
    value = ops.convert_to_tensor(variable)
    if keras.backend.backend() == "jax":
        import jax

        return None if isinstance(value, jax.core.Tracer) else int(value)
    import tensorflow as tf

    return int(value) if tf.executing_eagerly() else None
