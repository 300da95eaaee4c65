"""How does an optimizer update the variables on a path, and nothing else?"""

import itertools

import keras

from keras_spos.engine.slots import keeping_outside
from keras_spos.weight_slice import is_part, whole

# Their updates depend on means over a weight, or on its shape.
_OF_WHOLE_WEIGHTS = (keras.optimizers.Adafactor, keras.optimizers.Muon)


def check_optimizer(optimizer, operations):
    """Refuses an optimizer that updates more than what is on a path.

    Args:
        optimizer: An optimizer.
        operations: The model's, some of which may have widths.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        raise ValueError(
            "Expected an optimizer that can update some of a model's variables: those "
            "on the path. Received: a MultiOptimizer, which updates all or none."
        )
    wide = [op.name for op in operations if getattr(op, "widths", ())]
    if wide and isinstance(optimizer, _OF_WHOLE_WEIGHTS):
        raise ValueError(
            "Where widths share a weight, a step updates a slice of it. Expected an "
            "optimizer whose updates do not depend on the shape of the weight, such as "
            f"SGD or AdamW. Received: {type(optimizer).__name__}, and widths in {wide}"
        )


def can_update_by_unit(optimizer, units):
    """Whether updating unit by unit equals updating all their variables together."""
    sources = [v for unit in units for v in unit.trainable]
    shared = len({id(whole(v)) for v in sources}) < len(sources)
    return not shared and _is_separable(optimizer)


# Where an optimizer of one's own may see all variables at once.
_HOOKS = (
    "apply",
    "apply_gradients",
    "_backend_apply_gradients",
    "_backend_update_step",
)


def _is_separable(optimizer):
    base = keras.optimizers.Optimizer
    return (
        all(getattr(type(optimizer), name) is getattr(base, name) for name in _HOOKS)
        and not optimizer.gradient_accumulation_steps
        and not optimizer.use_ema
        and optimizer.global_clipnorm is None
    )


def apply_together(backend, runner, optimizer, groups):
    """Applies an optimizer to the variables of some units, all at once.

    Args:
        backend: The engine's module for the backend.
        runner: Its runner.
        optimizer: A built optimizer.
        groups: Pairs (unit, gradients).
    """
    totals, parts, entire = {}, [], set()
    for unit, gradients in groups:
        for source, gradient in zip(unit.trainable, gradients, strict=True):
            if gradient is not None:
                variable = whole(source)
                if is_part(source):
                    parts.append((variable, backend.inside(gradient, source)))
                    gradient = backend.padded(gradient, source)
                else:
                    entire.add(id(variable))
                total = totals.get(id(variable), (variable, None))[1]
                totals[id(variable)] = (variable, backend.add(total, gradient))
    if not totals:
        # Nothing on this path trains; the next step draws another one.
        iterations = getattr(optimizer, "inner_optimizer", optimizer)._iterations
        runner.write([iterations], [runner.read([iterations])[0] + 1])
        return
    # Where several widths are averaged, one may be the whole beside parts of it.
    parts = [(v, mask) for v, mask in parts if id(v) not in entire]
    pairs = [(gradient, variable) for variable, gradient in totals.values()]
    variables = [variable for _, variable in pairs]
    in_cond = backend.assigning_in_cond(hasattr(optimizer, "inner_optimizer"))
    with keeping_outside(runner, optimizer, parts), in_cond:
        # Users' optimizers may change gradients there, as Keras on TensorFlow calls it.
        _averaging(optimizer, variables).apply_gradients(pairs)


def start_averages(runner, optimizer):
    """Starts an optimizer's moving averages of weights at the weights.

    Keras starts them at zero and sets all of them at the first step. The average
    of an option that is sampled later, or never, would begin at zero, and `fit`
    ends by assigning averages to weights.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if optimizer.use_ema:
        weights = runner.read(optimizer._trainable_variables)
        averages = optimizer._model_variables_moving_average
        runner.write(averages, [v + 0 for v in weights])


def _averaging(optimizer, variables):
    """The optimizer, as one that averages some variables of its own and no others.

    Keras averages every variable it was built with, at every step; the average of a
    variable that is not on the path would move.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if not inner.use_ema:
        return optimizer
    wanted = {id(v) for v in variables}
    keep = [id(v) in wanted for v in inner._trainable_variables]
    names = ("_trainable_variables", "_model_variables_moving_average")
    lists = {n: list(itertools.compress(getattr(inner, n), keep)) for n in names}
    narrow = _twin(inner, **lists)
    return narrow if optimizer is inner else _twin(optimizer, inner_optimizer=narrow)


def _twin(optimizer, **others):
    """An optimizer that shares all with another but some attributes."""
    twin = object.__new__(type(optimizer))
    # Past `__setattr__`, which would track the variables again.
    vars(twin).update(vars(optimizer), **others)
    return twin
