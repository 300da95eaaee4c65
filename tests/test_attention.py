"""Spaces of attention blocks: trained, counted, scored and written like any other."""

import keras
import numpy as np
import onnxruntime
from keras import layers
from models import cross_entropy, data, randomize
from reference import assert_trains_like_reference

import keras_spos as ks


def block(name, heads, width):
    """A transformer block over nine patches of eight numbers."""
    inputs = keras.Input((9, 8))
    x = layers.LayerNormalization(name=f"{name}_norm")(inputs)
    attention = layers.MultiHeadAttention(heads, 4, dropout=0.2, name=f"{name}_heads")
    x = layers.Add(name=f"{name}_add")([inputs, attention(x, x)])
    y = layers.LayerNormalization(name=f"{name}_norm2")(x)
    y = layers.Dense(width, "gelu", name=f"{name}_expand")(y)
    y = layers.Dense(8, name=f"{name}_project")(y)
    return keras.Model(inputs, layers.Add(name=f"{name}_add2")([x, y]), name=name)


def transformer():
    x = inputs = keras.Input((6, 6, 3), name="image")
    x = layers.Conv2D(8, 2, 2, name="patches")(x)
    x = layers.Reshape((9, 8), name="sequence")(x)
    for i in range(2):
        options = [block(f"b{i}_{h}_{w}", h, w) for h, w in ((1, 8), (2, 16))]
        skip = layers.Identity(name=f"b{i}_skip")
        x = ks.ChoiceBlock([*options, skip], labels=("s", "l", "skip"), name=f"b{i}")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    return randomize(ks.Supernet(inputs, layers.Dense(4, name="classifier")(x), seed=1))


def test_a_space_of_attention_blocks(tmp_path):
    batches = [data(6, seed=i) for i in range(3)]
    sgd = keras.optimizers.SGD(0.05, momentum=0.9)
    net, _ = assert_trains_like_reference(transformer, sgd, batches)
    flops, params = ks.flops_table(net), ks.params_table(net)
    for path in net.space.sample(4, seed=0):
        subnet = net.extract(path)
        assert flops(path) == ks.count_flops(subnet)
        assert params(path) == subnet.count_params()
    x, y = data(16)
    net.compile(loss=cross_entropy())
    path = (0, 1)
    (score,) = ks.Evaluator(net, x, (x, y))(path)
    subnet = net.extract(path)
    ks.to_onnx(subnet, tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    (logits,) = session.run(None, {"image": x})
    # There are no batch norms to recalibrate.
    assert score == np.mean(logits.argmax(-1) == y)
