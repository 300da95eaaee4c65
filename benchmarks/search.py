"""How good are the searches themselves, where every architecture's accuracy is known?

    python -m benchmarks.search --tables DIR --output results/search

Evolution (SPOS, Algorithm 1), NSGA-II and random search look for the most accurate
architecture of NAS-Bench-201 and of NAS-Bench-Macro with as many evaluations each, over
20 seeds, without a limit and with one that admits a third of the space. Scores are the
tables' test accuracies, so nothing is trained and nothing is noise.

    regret      = best accuracy that the limit admits - best accuracy found so far
    hypervolume = what the evaluated architectures dominate in (accuracy, FLOPs), from
                  the median accuracy up, as a share of what the table dominates

With `pip install pyglove`, that library's regularized evolution (Real et al., 2019)
runs beside them where there is no limit; the package does not need it.
"""

import argparse
import json
import os
import time

import numpy as np

import keras_spos as ks
from keras_spos import plots, search, spaces, tabular
from keras_spos.search.result import hypervolume

TABLES = {
    "NAS-Bench-201": (spaces.nasbench201, tabular.nasbench201, "cifar10_test_200"),
    "NAS-Bench-Macro": (spaces.nasbench_macro, tabular.nasbench_macro, "mean_acc"),
}
POPULATION = 50
# The share of the space that the limit admits.
LIMIT_QUANTILE = 1 / 3
PEER = "regularized evolution (pyglove)"
PEER_SEEDS = 10  # It takes seconds a search, most of them not scoring.


def main():
    """Runs all searches and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", default=os.environ.get("KERAS_SPOS_DATA"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--generations", type=int, default=10)
    parser.add_argument("--output", help="folder for search.json and pictures")
    args = parser.parse_args()
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    rows = []
    for name, (build, load, truth) in TABLES.items():
        net, table = build(), load(args.tables)
        paths = np.array(list(net.space.enumerate()))
        accuracies = table.accuracy(truth, table.rows(net.space, paths))
        known = Known(net.space, ks.flops_table(net), accuracies)
        for limited in (False, True):
            title = f"{name}, {'limited' if limited else 'no limit'}"
            curves = {}
            for how, find in searches(known, limited, args.generations).items():
                mine = list(seeds)[:PEER_SEEDS] if how == PEER else list(seeds)
                asked = {"seeds": mine, "generations": args.generations}
                part = f"{args.output}/parts/{_file(title)}-{_file(how)}.json"
                found = args.output and kept(part, asked)
                curves[how] = found or measure(known, limited, find, mine)
                if args.output:
                    keep(part, asked, curves[how])
                rows.append({"on": title, "search": how, **curves[how]})
                print(summary(rows[-1]), flush=True)
            if args.output:
                draw(args.output, title, curves)
    if args.output:
        write(args.output, rows)


def kept(path, asked):
    """What a run that was stopped has finished, or None."""
    if not os.path.exists(path):
        return None
    with open(path) as file:
        part = json.load(file)
    return part["curve"] if part["asked"] == asked else None


def keep(path, asked, curve):
    """Writes the curves of one search on one table."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        json.dump({"asked": asked, "curve": curve}, file)


def _file(title):
    return title.lower().replace(", ", "-").replace(" ", "_")


class Known:
    """A space whose every accuracy and cost is known.

    Args:
        space: The `SearchSpace`.
        flops: Its `CostTable`.
        accuracies: One for each path, in the order of ``space.enumerate()``.
    """

    def __init__(self, space, flops, accuracies):
        self.space = space
        self.flops = flops
        self.accuracies = np.reshape(accuracies, space.sizes)
        paths = np.array(list(space.enumerate()))
        costs, values = flops(paths), self.score(paths)
        self.limit = flops <= float(np.quantile(costs, LIMIT_QUANTILE))
        self.reference = (float(np.median(values)), float(costs.max()))
        legal = self.limit.satisfied(paths)
        self.best = {False: values.max(), True: values[legal].max()}
        self.volume = {
            False: self.dominated(values, costs),
            True: self.dominated(values[legal], costs[legal]),
        }

    def score(self, paths):
        """Tabulated accuracies of paths."""
        return self.accuracies[tuple(np.asarray(paths).T)]

    def dominated(self, scores, costs):
        """Hypervolume of architectures."""
        return hypervolume(np.column_stack([-scores, costs]), self.reference)


def searches(known, limited, generations):
    """Dict from a search's name to a function of a seed to the paths it scored."""
    evaluations = POPULATION * generations
    options = {
        "limits": [known.limit] if limited else [],
        "costs": [] if limited else [known.flops],
        "verbose": False,
    }
    batches = {"population": POPULATION, "generations": generations}
    found = {
        "evolution": lambda seed: search.evolve(
            known.space, known.score, seed=seed, **batches, **options
        ),
        "NSGA-II": lambda seed: search.nsga2(
            known.space,
            known.score,
            minimize=[known.flops],
            reference=known.reference,
            seed=seed,
            **batches,
            **options,
        ),
        "random search": lambda seed: search.random_search(
            known.space, known.score, evaluations=evaluations, seed=seed, **options
        ),
    }
    paths = {name: _paths_of(find) for name, find in found.items()}
    if not limited and _has_pyglove():
        paths[PEER] = lambda seed: regularized_evolution(known, evaluations, seed)
    return paths


def measure(known, limited, find, seeds):
    """Curves of one search over seeds, and its processor seconds."""
    start = time.process_time()
    found = [find(seed) for seed in seeds]
    seconds = (time.process_time() - start) / len(found)
    return {**_curves(known, limited, found), "seconds": seconds}


def regularized_evolution(known, evaluations, seed):
    """The peer: pyglove's regularized evolution with its defaults, tournament of 10."""
    import pyglove as pg

    algorithm = pg.evolution.regularized_evolution(
        population_size=POPULATION, tournament_size=10, seed=seed
    )
    choices = {
        d.name: pg.oneof(list(range(len(d.options)))) for d in known.space.decisions
    }
    algorithm.setup(pg.dna_spec(pg.Dict(choices)))
    paths = []
    for _ in range(evaluations):
        dna = algorithm.propose()
        paths.append(tuple(dna.to_numbers()))
        algorithm.feedback(dna, float(known.score([paths[-1]])[0]))
    return np.array(paths)


def _has_pyglove():
    try:
        import pyglove  # noqa: F401
    except ImportError:
        return False
    return True


def _paths_of(find):
    return lambda seed: find(seed).history.paths


def _curves(known, limited, found):
    """Regret and hypervolume after each batch of evaluations, for each seed."""
    ends = np.arange(POPULATION, len(found[0]) + 1, POPULATION)
    regrets, volumes = [], []
    for paths in found:
        scores, costs = known.score(paths), known.flops(paths)
        best = np.maximum.accumulate(scores)
        regrets.append((known.best[limited] - best[ends - 1]).tolist())
        volumes.append(
            [
                known.dominated(scores[:end], costs[:end]) / known.volume[limited]
                for end in ends
            ]
        )
    return {
        "evaluations": ends.tolist(),
        "regret": regrets,
        "hypervolume": volumes,
        "distinct": [len(np.unique(paths, axis=0)) for paths in found],
    }


def summary(row):
    """One line: what is left after the last evaluation."""
    regret = np.array(row["regret"])[:, -1]
    volume = np.array(row["hypervolume"])[:, -1]
    return (
        f"{row['on']:<25} {row['search']:<32} regret {regret.mean():.3f} "
        f"(sd {regret.std(ddof=1) if len(regret) > 1 else 0:.3f}, "
        f"zero in {np.mean(regret <= 0):.0%})  hypervolume {volume.mean():.4f}  "
        f"{row['seconds']:.1f} s a search"
    )


def draw(folder, title, curves):
    """Regret and hypervolume against evaluations, two pictures."""
    plots.plot_search_curves(
        {n: (c["evaluations"], c["regret"]) for n, c in curves.items()},
        os.path.join(folder, f"{_file(title)}-regret.png"),
        y="regret, points of accuracy",
        title=title,
    )
    plots.plot_search_curves(
        {n: (c["evaluations"], c["hypervolume"]) for n, c in curves.items()},
        os.path.join(folder, f"{_file(title)}-hypervolume.png"),
        y="share of the table's hypervolume",
        title=title,
        log=False,
    )


def write(folder, rows):
    """Writes search.json."""
    from recipes.common import provenance

    with open(os.path.join(folder, "search.json"), "w") as file:
        json.dump(
            {
                "provenance": provenance("benchmarks.search"),
                "lines": [summary(row) for row in rows],
                "rows": rows,
            },
            file,
            indent=1,
        )


if __name__ == "__main__":
    main()
