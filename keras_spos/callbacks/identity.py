"""Which training does a checkpoint belong to?"""

import json

import keras

from keras_spos.scores import described


def identity(model):
    """What a run and the one that goes on with its checkpoint must have in common.

    Names that Keras numbers are left out: they depend on what was built before.

    Args:
        model: A compiled model whose optimizer is built.

    Returns:
        A JSON-able dict.
    """
    sampler, space = (getattr(model, name, None) for name in ("sampler", "space"))
    result = {
        "search space": json.loads(space.to_json()) if space else None,
        "seed": getattr(model, "seed", None),
        "sampler": keras.saving.serialize_keras_object(sampler) if sampler else None,
        "layers": [type(x).__name__ for x in model._flatten_layers(include_self=False)],
        "variables": [[v.name, list(v.shape), str(v.dtype)] for v in model.variables],
        "optimizer": keras.saving.serialize_keras_object(model.optimizer),
        "optimizer variables": [
            [list(v.shape), str(v.dtype)] for v in model.optimizer.variables
        ],
        "steps_per_execution": model.steps_per_execution,
        "loss": described(model.loss),
        "loss weights": getattr(model._compile_loss, "_user_loss_weights", None),
    }
    return _without_names(json.loads(json.dumps(result, default=str)))


def _without_names(value):
    if isinstance(value, dict):
        rest = {k: _without_names(v) for k, v in value.items() if k != "name"}
        # A learning rate that is a number changes in training; a schedule does not.
        if isinstance(rest.get("learning_rate"), float):
            del rest["learning_rate"]
        return rest
    return [_without_names(v) for v in value] if isinstance(value, list) else value


def differences(there, here):
    """Describes how two identities differ: the first difference in each entry."""
    # What an earlier version did not write down cannot be compared.
    return [
        "{}: {} there, {} here".format(*_first(key, there[key], here[key]))
        for key in here
        if key in there and there[key] != here[key]
    ]


def _first(where, a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        key = next(k for k in {**a, **b} if a.get(k) != b.get(k))
        return _first(f"{where}, {key}", a.get(key), b.get(key))
    if isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return where, f"{len(a)} entries", f"{len(b)} entries"
        if any(isinstance(x, (list, dict, str)) for x in a):
            at = next(i for i in range(len(a)) if a[i] != b[i])
            return _first(f"{where}, number {at}", a[at], b[at])
    return where, *(
        text if len(text) <= 80 else f"{text[:77]}..."
        for text in (json.dumps(a), json.dumps(b))
    )


def learning_rate(optimizer):
    """A learning rate that is a number; None if a schedule computes it."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    rate = optimizer.get_config()["learning_rate"]
    return float(rate) if isinstance(rate, (int, float)) else None
