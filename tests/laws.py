"""The laws of every searchable layer, on every backend.

A concrete test names a layer:

    class TestMyLayer(SearchableLayerLaws):
        def make(self):
            return MyLayer(...)
"""

import functools
import json

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import CLASSES, SHAPE, FromList, cross_entropy, data, randomize, values
from reference import slots_of

from keras_spos import Supernet, count_flops, count_params, flops_table, params_table
from keras_spos.weight_slice import whole


class SearchableLayerLaws:
    """Subclass, define `make`, and name the class Test...

    Attributes:
        channels: Channels of the layer's input.
        stock: Whether extraction gives layers of Keras alone.
    """

    channels = 4
    stock = True

    def make(self):
        """Returns the layer; its output has four axes."""
        raise NotImplementedError

    def build(self, sampler=None):
        """A supernet of a convolution, the layer, and a classifier."""
        inputs = keras.Input(SHAPE, name="image")
        x = layers.Conv2D(self.channels, 1, name="stem")(inputs)
        x = layers.GlobalAveragePooling2D(name="pool")(self.make()(x))
        outputs = layers.Dense(CLASSES, name="classifier")(x)
        return randomize(Supernet(inputs, outputs, name="laws", sampler=sampler))

    def paths(self, net):
        """About four paths; the first and the last are always among them."""
        paths = list(net.space.enumerate())
        return list(dict.fromkeys([*paths[:: -(-len(paths) // 4)], paths[-1]]))

    def layer(self, net):
        (layer,) = net.searchable_layers
        return layer

    def test_extraction_is_the_path(self):
        net = self.build()
        x, _ = data(3)
        for path in self.paths(net):
            net.set_path(path)
            assert net.path == path
            subnet = net.extract(path)
            expected = ops.convert_to_numpy(subnet(x))
            for outputs in (net.predict(x, verbose=0), ops.convert_to_numpy(net(x))):
                np.testing.assert_allclose(outputs, expected, 1e-5, 1e-5)
            if self.stock:
                kinds = [type(layer).__module__ for layer in subnet._flatten_layers()]
                assert all(kind.startswith("keras.") for kind in kinds)

    def test_training_step_is_that_of_the_extracted_model(self):
        net = self.build()
        x, y = data(5)
        net.compile(keras.optimizers.SGD(0.1), cross_entropy())
        for path in self.paths(net):
            subnet = net.extract(path)
            # TensorFlow takes longer to trace a model than to run it once.
            eager = keras.backend.backend() == "tensorflow"
            subnet.compile(
                keras.optimizers.SGD(0.1), cross_entropy(), run_eagerly=eager
            )
            expected = subnet.train_on_batch(x, y)
            net.sampler = FromList([path])
            np.testing.assert_allclose(net.train_on_batch(x, y), expected, 1e-4)
            for a, b in zip(
                values(net.extract(path).variables),
                values(subnet.variables),
                strict=True,
            ):
                np.testing.assert_allclose(a, b, 1e-4, 1e-5)

    def test_saving_and_loading_is_identity(self, tmp_path):
        net = self.build(sampler=FromList([(0,) * len(self.make().decisions)]))
        path = self.paths(net)[-1]
        net.set_path(path)
        net.save(tmp_path / "net.keras")
        loaded = keras.saving.load_model(tmp_path / "net.keras")
        x, _ = data(3)
        outputs = [model.predict(x, verbose=0) for model in (net, loaded)]
        np.testing.assert_array_equal(*outputs)
        assert loaded.path == path
        assert loaded.space == net.space
        configs = [json.dumps(model.get_config()) for model in (net, loaded)]
        assert configs[0] == configs[1]
        assert loaded.sampler.paths == net.sampler.paths
        for a, b in zip(values(net.variables), values(loaded.variables), strict=True):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize("name", ["SGD", "AdamW"])
    def test_what_is_never_sampled_never_moves(self, name):
        paths = self.paths(self.build())
        sampled = paths[: len(paths) // 2]
        net = self.build(sampler=FromList(sampled))
        optimizer = {
            "SGD": keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01),
            "AdamW": keras.optimizers.AdamW(0.01, weight_decay=0.01),
        }[name]
        net.compile(optimizer, cross_entropy())
        optimizer.build(net.trainable_variables)
        # Slots start at zero, which a wrong decay would keep: start them elsewhere.
        for variable in optimizer.variables:
            if len(variable.shape) > 0:
                variable.assign(ops.ones(variable.shape) * 0.1)
        on = {id(v): np.zeros(v.shape, bool) for v in self.layer(net).variables}
        for path in sampled:
            for source in self.layer(net).sources(path):
                index = tuple(slice(0, n) for n in source.shape)
                on[id(whole(source))][index] = True
        before = [
            (v, on[id(v)], [v, *slots_of(optimizer, [v] if v.trainable else [])])
            for v in self.layer(net).variables
            if v.dtype != "int32"
        ]
        before = [(v, mask, kept, values(kept)) for v, mask, kept in before]
        net.fit(*data(40), batch_size=2, verbose=0)
        assert int(optimizer.iterations.value) == 20
        assert sum(not mask.all() for _, mask, _, _ in before) > 1
        assert any(mask.any() for _, mask, _, _ in before)
        for variable, mask, kept, olds in before:
            for old, new in zip(olds, values(kept), strict=True):
                np.testing.assert_array_equal(old[~mask], new[~mask], variable.path)
            if mask.any() and variable.trainable:
                assert np.any((olds[0] != values([variable])[0])[mask]), variable.path

    def test_every_option_is_traced_once(self, monkeypatch):
        net = self.build()
        calls = []
        kind = type(self.layer(net))
        run = kind.run_part

        def counted(layer, *args, **kwargs):
            calls.append(layer)
            return run(layer, *args, **kwargs)

        monkeypatch.setattr(kind, "run_part", counted)
        net.compile(keras.optimizers.SGD(0.1, momentum=0.9), cross_entropy())
        paths = self.paths(net)
        counts = []
        for _ in range(3):
            for path in paths:
                net.sampler = FromList([path])
                net.set_path(path)
                net.train_on_batch(*data(4))
                net.test_on_batch(*data(4))
                net.predict_on_batch(data(4)[0])
            counts.append(len(calls))
        assert 0 < counts[0] == counts[1] == counts[2]

    def test_the_path_changes_inside_a_users_function(self):
        net = self.build()
        x, _ = data(3)
        call, traces = users_function(net)
        for path in self.paths(net):
            subnet = net.extract(path)
            expected = ops.convert_to_numpy(subnet(x, training=True))
            picked = {id(whole(v)) for v in self.layer(net).sources(path)}
            off = [v for v in self.layer(net).variables if id(v) not in picked]
            off = [v for v in off if v.dtype != "int32"]
            before = values(off)
            net.set_path(path)
            np.testing.assert_allclose(call(x), expected, 1e-4, 1e-5)
            for a, b in zip(before, values(off), strict=True):
                np.testing.assert_array_equal(a, b)
            for a, b in zip(
                values(net.extract(path).non_trainable_variables),
                values(subnet.non_trainable_variables),
                strict=True,
            ):
                np.testing.assert_allclose(a, b, 1e-4, 1e-5)
        assert len(traces) == 1

    def test_tables_count_what_is_extracted(self):
        net = self.build()
        tables = flops_table(net), params_table(net)
        for path in self.paths(net):
            subnet = net.extract(path, fresh=True)
            counted = count_flops(subnet), count_params(subnet)
            assert tuple(float(table(path)[0]) for table in tables) == counted


def users_function(net):
    """Training-mode calls compiled by the user, and a list with an entry a trace."""
    traces = []
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @functools.partial(tf.function, autograph=False)
        def run(x):
            traces.append(1)
            return net(x, training=True)

        return lambda x: run(tf.constant(x)).numpy(), traces

    import jax

    @jax.jit
    def run(trainable, state, x):
        traces.append(1)
        return net.stateless_call(trainable, state, x, training=True)

    def call(x):
        trainable = [v.value for v in net.trainable_variables]
        outputs, state = run(
            trainable, [v.value for v in net.non_trainable_variables], x
        )
        for variable, value in zip(net.non_trainable_variables, state, strict=True):
            variable.assign(value)
        return np.asarray(outputs)

    return call, traces
