"""How does an optimizer update the variables on a path, and nothing else?"""

import contextlib
import itertools

import keras

from keras_spos.engine.slots import keeping_outside
from keras_spos.weight_slice import is_part, whole


def can_update_by_unit(optimizer, units):
    """Whether updating unit by unit equals updating all their variables together."""
    sources = [v for unit in units for v in unit.trainable]
    shared = len({id(whole(v)) for v in sources}) < len(sources)
    return not shared and _is_separable(optimizer)


def _is_separable(optimizer):
    base = keras.optimizers.Optimizer
    return (
        all(
            getattr(type(optimizer), name) is getattr(base, name)
            for name in ("apply", "_backend_apply_gradients", "_backend_update_step")
        )
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
    totals, parts = {}, []
    for unit, gradients in groups:
        for source, gradient in zip(unit.trainable, gradients, strict=True):
            if gradient is not None:
                variable = whole(source)
                if is_part(source):
                    parts.append((variable, backend.inside(gradient, source)))
                    gradient = backend.padded(gradient, source)
                total = totals.get(id(variable), (variable, None))[1]
                totals[id(variable)] = (variable, backend.add(total, gradient))
    if not totals:
        # Nothing on this path trains; the next step draws another one.
        iterations = getattr(optimizer, "inner_optimizer", optimizer)._iterations
        runner.write([iterations], [runner.read([iterations])[0] + 1])
        return
    variables, gradients = zip(*totals.values(), strict=True)
    scaled = hasattr(optimizer, "inner_optimizer")
    with (
        keeping_outside(runner, optimizer, parts),
        _averages_of(optimizer, variables),
        backend.assigning_in_cond(scaled),
    ):
        optimizer.apply(gradients, variables)


def start_averages(runner, optimizer):
    """Starts an optimizer's moving averages of weights at the weights.

    Keras starts them at zero and sets all of them at the first step. The average
    of an option that is sampled later, or never, would begin at zero, and `fit`
    ends by assigning averages to weights.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if optimizer.use_ema:
        # Another replica may have narrowed them by now.
        _, lists = vars(optimizer).get("_narrowed", (0, vars(optimizer)))
        weights = runner.read(lists["_trainable_variables"])
        averages = lists["_model_variables_moving_average"]
        runner.write(averages, [v + 0 for v in weights])


@contextlib.contextmanager
def _averages_of(optimizer, variables):
    """Narrows an optimizer's moving averages of weights to some variables.

    Keras averages every variable it was built with, at every step; the average of a
    variable that is not on the path would move.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not optimizer.use_ema:
        yield
        return
    names = ("_trainable_variables", "_model_variables_moving_average")
    # Past the optimizer's `__setattr__`, which would track the averages again.
    attributes = vars(optimizer)
    # Replicas are threads that take turns: the first narrows, the last widens again.
    inside, saved = attributes.pop("_narrowed", (0, None))
    saved = saved or {name: attributes[name] for name in names}
    attributes["_narrowed"] = inside + 1, saved
    wanted = {id(v) for v in variables}
    keep = [id(v) in wanted for v in saved["_trainable_variables"]]
    try:
        for name in names:
            attributes[name] = list(itertools.compress(saved[name], keep))
        yield
    finally:
        inside, saved = attributes.pop("_narrowed")
        if inside > 1:
            attributes["_narrowed"] = inside - 1, saved
        else:
            attributes.update(saved)
