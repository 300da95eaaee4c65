"""Latency tables: exported, measured and compared."""

import numpy as np
import onnxruntime
import pytest
from models import small_net
from stopwatch import COSTS, QUICK, Stopwatch, Ticks, measured

from hardware.compare import compare
from hardware.manifest import read_manifest
from hardware.measure import Settings, measure
from hardware.table import LatencyTable, read_table, with_correction
from keras_spos import CostRangeSampler, CostTable, search


def test_equal_blocks_are_exported_once(blocks):
    folder, net = blocks
    manifest = read_manifest(folder)
    labels = sorted(f["label"] for f in manifest.files.values())
    # Both choice blocks have the same four options; a skip computes nothing.
    assert labels == ["fixed_0", "fixed_3", "k3", "k5", "residual"]
    first, second = (b["options"] for b in manifest.layout["blocks"])
    assert first == second and first[3] is None
    flops = {f["label"]: f["flops"] for f in manifest.files.values()}
    from keras_spos import flops_table

    table = flops_table(net)
    assert table.base == flops["fixed_0"] + flops["fixed_3"]
    assert table.blocks[0].costs.tolist() == [
        flops["k3"],
        flops["k5"],
        flops["residual"],
        0,
    ]


@pytest.mark.parametrize("kind", ["choice", "paths"])
@pytest.mark.parametrize("wired", ["in a row", "side by side"])
def test_a_block_that_is_applied_twice_counts_twice(tmp_path, kind, wired):
    import keras

    from hardware.blocks import export_blocks
    from keras_spos import ChoiceBlock, MultiPathBlock, Supernet, flops_table

    def block(name):
        options = [keras.layers.Conv2D(3, k, padding="same") for k in (1, 3)]
        kinds = {"choice": ChoiceBlock, "paths": MultiPathBlock}
        return kinds[kind](options, name=name)

    image, twice = keras.Input((6, 6, 3)), block("twice")
    # Another has the same options, and is applied once.
    x = keras.layers.ReLU()(block("once")(keras.layers.ReLU()(image)))
    x = keras.layers.AveragePooling2D(2)(x)
    x = twice(twice(x)) if wired == "in a row" else twice(x) + twice(2.0 * x)
    net = Supernet(image, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    manifest = export_blocks(net, tmp_path, verbose=False)
    flops = flops_table(net)
    for path in net.space.enumerate():
        blocks = manifest.layout["blocks"]
        keys = [b["options"][path[b["decisions"][0]]] for b in blocks]
        keys += manifest.layout["base"]
        assert sum(manifest.files[key]["flops"] for key in keys) == flops(path)


def test_blocks_are_equal_if_they_compute_the_same(tmp_path):
    """On inputs of one size and layout, whatever they are trained with."""
    import keras

    from hardware.blocks import export_blocks
    from keras_spos import ChoiceBlock, Supernet, flops_table

    def block(name, **options):
        kernels = [keras.layers.Conv2D(3, k, padding="same", **options) for k in (1, 3)]
        return ChoiceBlock(kernels, name=name)

    x = image = keras.Input((6, 6, 3))
    for name, between, options in (
        ("a", keras.layers.Identity(), {}),
        ("b", keras.layers.Dense(3), {}),
        ("c", keras.layers.Dense(3), {"kernel_regularizer": "l2"}),
        ("d", keras.layers.Dropout(0.5), {"kernel_initializer": "ones"}),
        ("e", keras.layers.Dense(3), {"trainable": False}),
        ("f", keras.layers.AveragePooling2D(2), {}),
    ):
        x = between(block(name, **options)(x))
    net = Supernet(image, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    manifest = export_blocks(net, tmp_path, verbose=False)
    first, *inside, last = [b["options"] for b in manifest.layout["blocks"]]
    assert inside == [inside[0]] * 4 == [last] * 4 and not {*first} & {*inside[0]}
    base = manifest.layout["base"]
    assert len(base) == 4 and base[0] == base[1] == base[2]
    flops = flops_table(net)
    for path in ((0,) * 6, (1, 0, 0, 1, 0, 0)):
        blocks = manifest.layout["blocks"]
        keys = [b["options"][path[b["decisions"][0]]] for b in blocks] + base
        assert sum(manifest.files[key]["flops"] for key in keys) == flops(path)


def test_what_subnets_of_some_paths_lack_is_no_sum(tmp_path):
    import keras

    from hardware.blocks import export_blocks
    from keras_spos import ChoiceBlock, Supernet

    inputs = keras.Input((4,))
    both = [keras.layers.Dense(4, name=name)(inputs) for name in ("one", "two")]
    first = [keras.Input((4,)) for _ in range(2)]
    added = [keras.Input((4,)) for _ in range(2)]
    options = [
        keras.Model(first, first[0]),
        keras.Model(added, keras.layers.add(added)),
    ]
    net = Supernet(inputs, ChoiceBlock(options, "ab")(both))
    with pytest.raises(ValueError, match="one that leaves out 'two'.*latency of a"):
        export_blocks(net, tmp_path / "blocks", verbose=False)
    assert not (tmp_path / "blocks").exists()


def test_blocks_compute_the_network(blocks):
    """Chained in ONNX Runtime, the files take and give what their neighbours do."""
    folder, _ = blocks
    manifest = read_manifest(folder)
    keys = {f["label"]: manifest.path(f) for f in manifest.files.values()}
    x = np.ones((2, 6, 6, 3), "float32")
    for label in ("fixed_0", "k3", "residual", "fixed_3"):
        session = onnxruntime.InferenceSession(
            keys[label], providers=["CPUExecutionProvider"]
        )
        (given,), (result,) = session.get_inputs(), session.get_outputs()
        assert tuple(given.shape) == x.shape
        (x,) = session.run(None, {given.name: x})
        assert tuple(result.shape) == x.shape
    assert x.shape == (2, 4)


def test_a_table_adds_up_and_limits_a_search(blocks, tmp_path):
    folder, net = blocks
    ours = measured(folder, Stopwatch(), tmp_path)
    table = CostTable.load(tmp_path / "table.json")
    assert table.space == net.space
    assert (table.unit, table.metadata["batch"]) == ("ms", 2)
    paths = list(net.space.enumerate())
    costs = [2.0, 3.0, 1.0, 0.0]
    expected = [10.5 + costs[a] + costs[b] for a, b in paths]
    np.testing.assert_allclose(table(paths), expected)
    np.testing.assert_allclose(ours(paths), expected)
    for wrong in ((0, 4), (-1, 0), (0,), (0.0, 1.0)):
        with pytest.raises(ValueError, match="Received: "):
            ours([wrong])

    def score(paths):
        return table(paths)  # The slower, the better.

    result = search.evolve(
        net.space, score, [table <= 13.5], 4, 2, topk=2, verbose=False
    )
    assert max(row["latency"] for row in result.history) <= 13.5
    front = search.nsga2(
        net.space, score, [table], population=4, generations=2, verbose=False
    )
    assert front.front
    path = CostRangeSampler(table, [(15, 17)]).draw(net.space, np.random.default_rng(0))
    assert 15 <= table(path)[0] <= 17


def test_a_table_of_another_network_is_refused(blocks, tmp_path):
    """Its decisions and options have the same names."""
    folder, net = blocks
    measured(folder, Stopwatch(), tmp_path)
    table = CostTable.load(tmp_path / "table.json")
    # Built anew it is the same, whatever it is trained with.
    rebuilt = small_net(l2=1e-4, seed=1)
    other = small_net(kernel_size=7)
    assert rebuilt.space == other.space == net.space

    def uses(space):
        def score(paths):
            return np.zeros(len(paths))

        few = {"population": 4, "generations": 1, "topk": 2, "verbose": False}
        yield lambda: search.evolve(space, score, [table <= 15], **few)
        yield lambda: search.evolve(space, score, costs=[table], **few)
        yield lambda: search.nsga2(space, score, [table], **few)
        sampler = CostRangeSampler(table, [(15, 17)])
        yield lambda: sampler.draw(space, np.random.default_rng(0))

    for use in uses(rebuilt.space):
        use()
    for use in uses(other.space):
        with pytest.raises(
            ValueError, match=r"another network.*2 of its parts.*'block_0'"
        ):
            use()
    # As in tables of earlier versions, which do not say.
    del table.metadata["network"]
    for use in uses(other.space):
        use()


def test_a_block_that_fails_is_noted_and_the_rest_is_kept(blocks, tmp_path):
    folder, net = blocks
    engine = Stopwatch(fails={"k5"})
    table = measured(folder, engine, tmp_path)
    assert engine.opened.count("k5") == 1  # Not in each round.
    ((key, error),) = table.failures().items()
    assert key.startswith("k5") and error == "cannot run k5"
    assert table([(0, 2)]).tolist() == [13.5]
    with pytest.raises(ValueError, match="'block_1'.*cannot run k5"):
        table([(0, 2), (0, 1)])
    missed = r"misses block 'block_0', options \[\(1,\)\].*failed for k5-\w+: cannot"
    with pytest.raises(ValueError, match=missed):
        CostTable.load(tmp_path / "table.json")
    # Again, on an engine that can.
    engine = Stopwatch()
    assert not measured(folder, engine, tmp_path).failures()
    assert set(engine.opened) == {"k5"}
    measured(folder, Stopwatch(fails={"fixed_3"}), tmp_path, "fixed")
    table = read_table(tmp_path / "fixed.json")
    with pytest.raises(ValueError, match="misses fixed blocks.*cannot run fixed_3"):
        table([(0, 0)])
    with pytest.raises(ValueError, match=r"base=None.*failed for fixed_3-\w+: cannot"):
        CostTable.load(tmp_path / "fixed.json")


def test_stopped_and_gone_on_is_never_stopped(blocks, tmp_path):
    folder, _ = blocks
    measured(folder, engine := Stopwatch(), tmp_path)
    assert engine.opened[:5] != engine.opened[5:10]  # Each round has an order.
    log = (tmp_path / "table.log").read_text().splitlines(keepends=True)
    # Killed in the middle of the eighth line.
    (tmp_path / "table.log").write_text("".join(log[:7]) + log[7][:10])
    engine = Stopwatch()
    measured(folder, engine, tmp_path)
    assert len(engine.opened) == len(log) - 7
    assert sorted((tmp_path / "table.log").read_text().splitlines()) == sorted(
        line.rstrip() for line in log
    )


def test_two_do_not_write_to_one_log(tmp_path):
    class Second(Stopwatch):
        def open(self, path):
            with pytest.raises(ValueError, match="log is in use: another process"):
                measure({"k3": "k3-0"}, Stopwatch(), tmp_path / "log", QUICK)
            return super().open(path)

    for engine in (Second(), Stopwatch()):
        measure({"k3": "k3-0"}, engine, tmp_path / "log", QUICK, verbose=False)
    assert not engine.opened
    assert len((tmp_path / "log").read_text().splitlines()) == 1 + QUICK.rounds


def test_devices_are_not_mixed(blocks, tmp_path):
    folder, _ = blocks
    measured(folder, Stopwatch(), tmp_path)
    with pytest.raises(
        ValueError, match="device: expected 'a clock', received 'another'"
    ):
        measured(folder, Stopwatch(device="another"), tmp_path)


def test_settings_are_not_mixed(tmp_path):
    def run(**settings):
        engine, settings = Stopwatch(), Settings(**{**vars(QUICK), **settings})
        result = measure({"k3": "k3-0"}, engine, tmp_path / "log", settings, "", False)
        return len(engine.opened), result["k3"]["rounds"]

    assert run() == (3, 3)
    assert run(statistic="floor") == (0, 3)
    # More rounds are added; of fewer, the first count.
    assert run(rounds=5) == (2, 5)
    assert run(rounds=2) == (0, 2)
    for changed in ({"seconds": 0.1}, {"min_runs": 9}, {"seed": 1}):
        with pytest.raises(ValueError, match=f"{[*changed][0]}: expected .*Remove it"):
            run(**changed)
    wrongs = [{"rounds": 0}, {"rounds": -1}, {"seconds": -1}, {"seconds": np.inf}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=f"Received: .*{[*wrong][0]}=(-?[01]|inf)"):
            run(**wrong)


def test_lines_that_are_no_figures(tmp_path):
    log = tmp_path / "log"

    def run():
        engine = Stopwatch()
        measure({"k3": "k3-0"}, engine, log, QUICK, "", False)
        return len(engine.opened)

    run()
    lines = log.read_text().splitlines(keepends=True)
    lines[1:2] = ["[1]\n", "7\n", '{"key": "k3"}\n']
    log.write_bytes("".join(lines).encode() + b"\xff\n")
    assert run() == 1
    for other in ("[1]\n", "notes\n", '{"a": 1}\n', "\n"):
        log.write_text(other)
        with pytest.raises(ValueError, match="log is where .* is another file"):
            run()
        assert log.read_text() == other


def test_the_floor_does_not_see_who_else_was_there(tmp_path):
    class Shared(Stopwatch):
        def open(self, path):
            self.opened.append(path)
            # Half of the rounds share the core.
            return Ticks(2.0 if len(self.opened) % 2 else 1.0)

    settings = Settings(rounds=6, seconds=0.02, warmup_seconds=0, statistic="floor")
    result = measure({"a": "a"}, Shared(), tmp_path / "log", settings, verbose=False)
    assert result["a"]["latency_ms"] == 1.0
    assert result["a"]["median_ms"] == 1.5
    assert result["a"]["samples"] == 3 * 10 + 3 * 20


def test_comparing_tables(blocks, tmp_path):
    first = measured(blocks[0], Stopwatch(), tmp_path, "first")
    slower = {label: 2 * ms for label, ms in COSTS.items()}
    slower |= {"fixed_0": COSTS["fixed_0"], "fixed_3": 3 * COSTS["fixed_3"]}
    second = measured(blocks[0], Stopwatch(slower, device="slow"), tmp_path, "second")
    report = compare(first, second)
    assert report["ratio"] == {"lowest": 1.0, "median": 2.0, "highest": 3.0}
    assert report["paths_kendall_tau"] == 1
    assert (report["blocks"], report["within_spread"]) == (5, 1)
    assert compare(first, first)["within_spread"] == 5

    def changed(data=None, metadata=None):
        metadata = {**first.metadata, **(metadata or {})}
        return LatencyTable({**first.data, "metadata": metadata, **(data or {})})

    # Each within 1 ms: k3's 2 and 4 ms agree, the residual's 1 and 2 do too.
    for table in (first, second):
        for entry in table.metadata["entries"].values():
            entry["spread_ms"] = 1.0 if entry["label"] == "k3" else 0.5
    assert compare(first, second)["within_spread"] == 4
    doubled = {"kind": "x", "factor": 2.0, "per_block_ms": 0.0, "offset_ms": 0.0}
    table = with_correction(first.metadata, first.data["space"], doubled)
    assert compare(first, table)["paths_ratio"] == 2
    # Tables of earlier versions do not say of which network they are.
    assert compare(changed(metadata={"network": None}), first)["blocks"] == 5
    for other, message in (
        (changed({"space": {"decisions": []}}), "different search spaces"),
        (changed(metadata={"network": {"block_0": "another"}}), "different networks"),
        (changed(metadata={"batch": 1}), "tables of one batch. Received: 2 and 1"),
        (changed(metadata={"precision": "int8"}), "one precision. Received: .* int8"),
        (changed(metadata={"entries": {}}), "without one in common"),
        (
            measured(blocks[0], Stopwatch(fails={"k5"}), tmp_path, "fails"),
            "misses an option.*cannot run k5",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            compare(first, other)


@pytest.mark.parametrize("kind", ["int32", "int64", "bool"])
def test_inputs_are_measured_that_are_indices_or_masks(tmp_path, kind):
    import keras

    from hardware.blocks import export_blocks
    from hardware.engines import open_engine
    from keras_spos import ChoiceBlock, Supernet

    words, x = keras.Input((5,), dtype=kind), keras.Input((5,), dtype=kind)
    numbers = keras.ops.cast(x, "float32")
    options = [keras.Model(x, keras.ops.stack([numbers, numbers], axis=-1))]
    if kind != "bool":
        # Of two words, so that nearly every index is one too many.
        options.append(keras.Model(x, keras.layers.Embedding(2, 2)(x)))
    net = Supernet(words, keras.layers.Dense(2)(ChoiceBlock(options)(words)))
    manifest = export_blocks(net, tmp_path, verbose=False)
    files = {key: manifest.path(entry) for key, entry in manifest.files.items()}
    with open_engine("onnxruntime", "cpu") as engine:
        results = measure(files, engine, tmp_path / "log", QUICK, "blocks", False)
    assert not [r["error"] for r in results.values() if "error" in r]
