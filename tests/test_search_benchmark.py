"""The search benchmark's figures are right on a space that is searched whole."""

import numpy as np
from landscapes import Landscape, all_paths, make_space, make_table

from benchmarks import search as benchmark


def test_regret_and_hypervolume_of_known_searches(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "POPULATION", 9)
    monkeypatch.setattr(benchmark, "_has_pyglove", lambda: False)
    space = make_space(3, 3, 3)
    flops, landscape = make_table(space, base=0), Landscape(space)
    accuracies = landscape.truth(all_paths(space))
    known = benchmark.Known(space, flops, accuracies)
    np.testing.assert_array_equal(known.score(all_paths(space)), accuracies)
    legal = flops(all_paths(space)) <= known.limit.value
    assert legal.sum() == 9
    for limited, rounds in ((False, 3), (True, 1)):
        curves = {
            name: benchmark.measure(known, limited, find, seeds=range(3))
            for name, find in benchmark.searches(known, limited, rounds).items()
        }
        assert list(curves) == ["evolution", "NSGA-II", "random search"]
        for name, curve in curves.items():
            assert curve["evaluations"] == [9 * (i + 1) for i in range(rounds)]
            regret = np.array(curve["regret"])
            assert np.all(np.diff(regret, axis=1) <= 0) and regret.shape == (3, rounds)
            # As many evaluations as there are legal paths, none twice: all were seen.
            assert curve["distinct"] == [9 * rounds] * 3
            np.testing.assert_allclose(regret[:, -1], 0, err_msg=name)
            np.testing.assert_allclose(np.array(curve["hypervolume"])[:, -1], 1)
    benchmark.draw(tmp_path, "Known", curves)
    assert len(list(tmp_path.glob("*.png"))) == 2
    row = {"on": "Known", "search": "evolution", **curves["evolution"]}
    assert "zero in 100%" in benchmark.summary(row)
    part, asked = tmp_path / "parts" / "a.json", {"seeds": [0, 1, 2]}
    assert benchmark.kept(part, asked) is None
    benchmark.keep(part, asked, curves["evolution"])
    assert benchmark.kept(part, asked) == curves["evolution"]
    assert benchmark.kept(part, {"seeds": [0]}) is None
