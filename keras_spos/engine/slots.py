"""Which of an optimizer's variables belong to a weight, and keeping parts of them."""

import contextlib

import keras


def slots_of(optimizer, variable):
    """The optimizer's variables for one weight: momentum, averages and the like."""
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
    return [
        slots[index]
        for slots in lists
        if isinstance(slots[index], keras.Variable)
        and tuple(slots[index].shape) == tuple(variable.shape)
    ]


@contextlib.contextmanager
def keeping_outside(runner, optimizer, parts):
    """Keeps what lies outside some slices, whatever happens to the whole inside.

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
    yield
    after = runner.read(variables)
    runner.write(
        variables,
        [
            keras.ops.where(mask, new, old)
            for (_, mask), new, old in zip(kept, after, before, strict=True)
        ],
    )
