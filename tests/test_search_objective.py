"""A search minimizes any callable that is an `Objective`."""

import pytest
from landscapes import Landscape, all_paths, make_space, make_table

from keras_spos import search


def nsga2(space, score, minimize, **options):
    return search.nsga2(space, score, minimize=minimize, verbose=False, **options)


def test_any_callable_is_an_objective(tmp_path):
    space = make_space(*[4] * 5)
    flops = make_table(space)
    calls = []

    def energy(paths):
        calls.extend(map(tuple, paths.tolist()))
        return flops(paths)

    options = {"population": 10, "generations": 5}
    objective = search.Objective(
        space, energy, "energy", worst=flops.reachable_range()[1]
    )
    checkpoint = tmp_path / "run.json"
    found = nsga2(
        space, Landscape(space), [objective], checkpoint=checkpoint, **options
    )
    new = next(path for path in all_paths(space).tolist() if tuple(path) not in calls)
    assert objective([new, new]).tolist() == [flops(new)[0]] * 2
    assert len(calls) == len(set(calls)) == 51
    table = nsga2(space, Landscape(space), [flops], **options)
    assert found.history.paths.tolist() == table.history.paths.tolist()
    assert found.history.hypervolume == table.history.hypervolume
    assert found.history.costs["energy"].tolist() == flops(found.history.paths).tolist()
    # Resumed with more generations, and not with another objective.
    options["generations"] = 6
    again = nsga2(
        space,
        Landscape(space),
        [search.Objective(space, energy, "energy", worst=9)],
        checkpoint=checkpoint,
        **options,
    )
    assert again.history.paths[:50].tolist() == found.history.paths.tolist()
    other = search.Objective(space, energy, "heat", worst=9)
    with pytest.raises(ValueError, match="belongs to another search"):
        nsga2(space, Landscape(space), [other], checkpoint=checkpoint, **options)
    with pytest.raises(ValueError, match="without a worst value needs the reference"):
        nsga2(space, Landscape(space), [search.Objective(space, energy, "energy")])
    bad = search.Objective(space, lambda paths: paths, "shape", worst=1)
    score = Landscape(space)
    with pytest.raises(ValueError, match="shape returns one number per path"):
        nsga2(space, score, [bad])
    assert not score.calls
