"""What searches on a supernet found is judged by the table, once all have ended."""

import json

import keras
import numpy as np
from keras import layers
from tables import nasbench_macro as write_table

import keras_spos as ks
from keras_spos.tabular.archive import Archive
from keras_spos.tabular.paths import MACRO_OPTIONS
from recipes import nasbench_macro_search as recipe


def half_of_it(input_shape=(8, 8, 3), l2=0.0, sampler=None, seed=0, **others):
    """Eight equal blocks of two of the three options: 256 paths."""
    x = inputs = keras.Input(input_shape)
    x = layers.Conv2D(4, 3, strides=2, use_bias=False)(x)
    for i in range(8):
        options = [layers.Identity(), [layers.Conv2D(4, 1), layers.ReLU()]]
        x = ks.ChoiceBlock(options, labels=MACRO_OPTIONS[:2], name=f"block_{i}")(x)
    outputs = layers.Dense(10)(layers.GlobalAveragePooling2D()(x))
    return ks.Supernet(inputs, outputs, sampler=sampler, seed=seed)


def test_what_is_found_is_judged_by_the_table(tmp_path, monkeypatch, smoke):
    write_table(tmp_path)
    monkeypatch.setattr(recipe.spaces, "nasbench_macro", half_of_it)
    events = []

    def noting(name, function):
        def noted(*args, **kwargs):
            events.append(name)
            return function(*args, **kwargs)

        return noted

    for name in ("evolve", "random_search"):
        noted = noting("search", getattr(recipe.search, name))
        monkeypatch.setattr(recipe.search, name, noted)
    monkeypatch.setattr(Archive, "accuracy", noting("truth", Archive.accuracy))
    train = noting("train", recipe.ranking.Study.train)
    monkeypatch.setattr(recipe.ranking.Study, "train", train)
    folder, result = smoke(recipe, "--tables", str(tmp_path))
    assert (folder / "found.png").stat().st_size > 1000
    # Under each of three limits two searches of each kind: all before the truth.
    truth_at = events.index("truth")
    assert events[:truth_at] == ["train"] + ["search"] * 12
    assert set(events[truth_at:]) == {"truth"}

    flops = ks.flops_table(half_of_it())
    with np.load(tmp_path / "nasbench_macro.npz") as table:
        accuracies = {
            tuple(path): float(accuracy)
            for path, accuracy in zip(table["arch"], table["mean_acc"], strict=True)
            if max(path) < 2
        }
    paths = np.array(list(accuracies))
    scores = np.array(json.loads((folder / "parts" / "supernet_0.json").read_text()))
    scores = dict(zip(map(tuple, flops.space.enumerate()), scores, strict=True))
    assert len(scores) == len(accuracies) == 256
    rows = {(row["limit"], row["by"]): row for row in result["rows"]}
    limits = sorted({row["limit"] for row in result["rows"]})
    assert limits == np.quantile(flops(paths), (0.25, 0.5, 0.75)).tolist()
    assert len(rows) == len(limits) * 5
    for limit in limits:
        legal = [path for path in accuracies if flops([path])[0] <= limit]
        best = max(accuracies[path] for path in legal)
        legal.sort()  # as the space enumerates them
        largest = sorted(legal, key=lambda path: -flops([path])[0])[:10]
        chosen = {
            "most FLOPs (mean of 10)": largest,
            "random network (mean of all)": legal,
        }
        for each in result["found"]:
            if each["limit"] == limit:
                path = tuple(each["path"])
                assert path in legal and each["accuracy"] == accuracies[path]
                chosen.setdefault(each["by"], []).append(path)
        (highest,) = chosen["highest score of all"]
        assert scores[highest] == max(scores[path] for path in legal)
        for by, found in chosen.items():
            row = rows[limit, by]
            assert row["networks"] == len(legal) and row["best"] == best
            mean = np.mean([accuracies[path] for path in found])
            better = [
                np.mean([accuracies[other] > accuracies[path] for other in legal])
                for path in found
            ]
            np.testing.assert_allclose(
                [row["accuracy"], row["regret"], row["share_better"]],
                [mean, best - mean, np.mean(better)],
            )

    events.clear()
    _, again = smoke(recipe, "--tables", str(tmp_path), "--resume")
    assert "train" not in events and again == result
