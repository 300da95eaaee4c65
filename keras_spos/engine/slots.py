"""Which of an optimizer's variables belong to a weight, and keeping parts of them."""

import contextlib

import keras
from keras import optimizers

from keras_spos.weight_slice import is_part, whole

# Optimizers that treat all weights of a shape alike, but for decay and constraints.
_ALIKE = {
    optimizers.SGD,
    optimizers.RMSprop,
    optimizers.Adam,
    optimizers.AdamW,
    optimizers.Adagrad,
    optimizers.Adadelta,
    optimizers.Adamax,
    optimizers.Lion,
    optimizers.Lamb,
}


def slots_of(optimizer, variable):
    """The optimizer's variables for one weight, of its shape: momentum and the like."""
    return [
        slot
        for slot in _per_weight(optimizer, variable)
        if tuple(slot.shape) == tuple(variable.shape)
    ]


def _per_weight(optimizer, variable):
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    index = optimizer._get_variable_index(variable)
    count = len(optimizer._trainable_variables)
    # Every optimizer of Keras keeps a list with one variable per weight.
    lists = [
        value
        for name, value in vars(optimizer).items()
        if isinstance(value, (list, tuple))
        and len(value) == count
        and name not in ("_variables", "_trainable_variables")
    ]
    return [x[index] for x in lists if isinstance(x[index], keras.Variable)]


def update_kind(optimizer, source):
    """What is equal for weights that one compiled update serves.

    Args:
        optimizer: A built optimizer.
        source: A weight, or a slice of one.
    """
    variable = whole(source)
    if (
        type(optimizer) not in _ALIKE
        or variable.constraint is not None
        or variable.overwrite_with_gradient
    ):
        return id(variable), is_part(source)
    return (
        tuple(variable.shape),
        variable.dtype,
        is_part(source),
        optimizer._use_weight_decay(variable),
    )


def counterparts(optimizer, sources, others):
    """Pairs of what updates of some weights touch with what those of others touch."""
    pairs = []
    for source, other in zip(sources, others, strict=True):
        weights = whole(source), whole(other)
        touched = [[v, *_per_weight(optimizer, v)] for v in weights]
        pairs += zip(*touched, strict=True)
    return pairs


@contextlib.contextmanager
def keeping_outside(runner, optimizer, parts):
    """Keeps what lies outside some slices, whatever happens to the whole inside.

    Inside, there are zeros outside of the slices, so that norms (such as those of a
    constraint, or of `Lamb`) are those of the slices.

    Args:
        runner: Reads and writes variables.
        optimizer: The optimizer whose slots are kept too.
        parts: Pairs (variable, boolean mask that is True inside the slice). The masks
            of one variable are united.
    """
    masks = {}
    for variable, mask in parts:
        known = masks.get(id(variable), (variable, None))[1]
        masks[id(variable)] = variable, mask if known is None else known | mask
    kept = [
        (v, mask)
        for variable, mask in masks.values()
        for v in (variable, *slots_of(optimizer, variable))
    ]
    variables = [v for v, _ in kept]
    before = runner.read(variables)
    alone = [
        keras.ops.where(mask, old, keras.ops.zeros_like(old))
        for (_, mask), old in zip(kept, before, strict=True)
    ]
    try:
        runner.write(variables, alone)
        yield
        after = runner.read(variables)
        runner.write(
            variables,
            [
                keras.ops.where(mask, new, old)
                for (_, mask), new, old in zip(kept, after, before, strict=True)
            ],
        )
    except BaseException:
        # Whatever stopped it, such as Ctrl-C: no zeros stay where others' weights were.
        runner.write(variables, before)
        raise
