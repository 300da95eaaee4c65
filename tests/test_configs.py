"""A config mirrors `__init__`: what is made of it has the same arguments."""

import inspect
import json

import keras
import pytest
from keras.layers import Identity, ReLU
from models import dense_net

import keras_spos as ks
from keras_spos import layers

ALPHA = {"alpha": 3.0, "alpha_regularizer": "l2"}
EACH = {"kernel_initializer": ["zeros", "ones"]}
OPTIONS = {"options": {"block": [(0, (0,)), (0, (1,)), (0, (0, 1))]}}


def group():
    parts = {part: ReLU() for part in ("before", "after")}
    paths = [ReLU(), Identity()]
    norm = layers.ShadowBatchNormalization(2)
    return {"paths": paths, **parts, "norm": norm, "labels": "ab", "subsets": [(1,)]}


def model():
    inputs = keras.Input((4, 4, 3))
    elastic = layers.ElasticQuantizedConv2D((2, 3), 1, bits=[(2, 2), (4, 4)])
    return keras.Model(inputs, elastic(inputs))


# All arguments of each class, none with the value that it has by default.
CASES = {
    layers.PACT: lambda: {"bits": 2, **ALPHA},
    layers.QuantizedConv2D: lambda: {
        **{"filters": 4, "kernel_size": 3, "weight_bits": 2, "activation_bits": 4},
        **ALPHA,
    },
    layers.ElasticQuantizedConv2D: lambda: {
        **{"filters": (2, 4), "kernel_size": 3, "bits": [(2, 4)]},
        **ALPHA,
    },
    layers.SliceableConv2D: lambda: {"filters": (2, 4), "kernel_size": 3, **EACH},
    layers.SliceableDense: lambda: {"units": (2, 4), **EACH},
    layers.ShadowBatchNormalization: lambda: {
        **{"max_paths": 2, "shadow": False, "momentum": 0.8, "epsilon": 0.1},
        **{"center": False, "scale": False, "name": "x"},
    },
    layers.PathGroup: lambda: {**group(), "name": "x"},
    layers.MultiPathBlock: lambda: {
        **{"groups": [layers.PathGroup(**group())], "max_paths": 2},
        **{"decision": "d", "name": "x"},
    },
    layers.ChoiceBlock: lambda: {
        **{"options": [ReLU(), Identity()], "labels": "ab"},
        **{"decision": "d", "name": "x"},
    },
    layers.ElasticBlock: lambda: {
        **{"options": [model()], "labels": "a", "widths": "sl", "bits": "24"},
        **{"decision": "d", "name": "x"},
    },
    ks.CostRangeSampler: lambda: {
        **{"table": ks.params_table(dense_net()), "bins": [(0, 200)], "max_draws": 7},
    },
    ks.PathDropoutSampler: lambda: {"rate": 0.3},
    ks.WideningSampler: lambda: {"steps": 9, "first": 3, "suffix": "_w"},
    ks.MultiPathSampler: lambda: OPTIONS,
    ks.BernoulliSampler: lambda: {**OPTIONS, "probability": 0.3},
    ks.OneShotSampler: lambda: {**OPTIONS, "rate": 0.3},
}


@pytest.mark.parametrize("kind", CASES)
def test_a_config_has_every_argument(kind):
    arguments = CASES[kind]()
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    parameters = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    assert {p.name for p in parameters} == set(arguments)
    config = kind(**arguments).get_config()
    text = json.dumps(config)
    assert json.dumps(kind.from_config(json.loads(text)).get_config()) == text
    for name in (p.name for p in parameters if p.default is not p.empty):
        rest = {key: value for key, value in arguments.items() if key != name}
        assert kind(**rest).get_config()[name] != config[name], name
