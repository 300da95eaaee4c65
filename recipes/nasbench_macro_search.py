"""What does a search on a supernet find? NAS-Bench-Macro tells how good it is.

    python -m recipes.nasbench_macro_search --preset small --data-dir DIR --tables DIR

Supernets are trained by fair sampling, as in `recipes.nasbench_macro`. Under each of
three FLOPs limits, evolution and random search look for the network with the highest
score, with as many evaluations each. Only when all searches have ended are the table's
accuracies read:

    regret = best accuracy that the limit admits - accuracy of what was found

Beside what they find stand the network that scores highest of all within the limit,
which tells what a search missed from what the score gets wrong; the ten of the most
FLOPs; and all. The limits admit 25, 50 and 75 % of the space; FLOPs are those of the
benchmark's own networks, whatever the supernet's size.
"""

import dataclasses

import numpy as np

import keras_spos as ks
from keras_spos import plots, search, spaces, tabular
from recipes import nasbench_macro, ranking
from recipes.common import Output, markdown_table, settings_dict
from recipes.ranking_report import deviation

TRUTH = "mean_acc"
TRAINING = "fair sampling"
SHARES = (0.25, 0.5, 0.75)
EVOLUTION, RANDOM, HIGHEST = "evolution", "random search", "highest score of all"
MOST_FLOPS, ANY = "most FLOPs (mean of 10)", "random network (mean of all)"


@dataclasses.dataclass(frozen=True)
class Search:
    """How a preset searches.

    Args:
        population: Networks in a generation.
        generations: Number of generations.
        topk: Number of parents.
        searches: Searches of each kind on each supernet, under each limit.
    """

    # SPOS's 1,000 evaluations would be most of what the smallest limit admits.
    population: int = 20
    generations: int = 10
    topk: int = 10
    searches: int = 10

    @property
    def evaluations(self):
        """Number of networks that a search scores."""
        return self.population * self.generations


SEARCHES = {
    "small": Search(),
    "smoke": Search(population=4, generations=2, topk=2, searches=2),
    "paper": Search(),
}


def main():
    """Runs the recipe."""
    presets = nasbench_macro.PRESETS
    parser = ranking.parser_with_tables(__doc__.splitlines()[0], list(presets))
    args = parser.parse_args()
    settings, how = presets[args.preset], SEARCHES[args.preset]
    table = tabular.nasbench_macro(args.tables or args.data_dir)
    output = Output("nasbench_macro_search", args)
    study = ranking.Study(settings, output, args, spaces.nasbench_macro, table)
    flops = ks.flops_table(spaces.nasbench_macro())
    paths = np.array(list(flops.space.enumerate()))
    costs = flops(paths)
    limits = [flops <= float(np.quantile(costs, share)) for share in SHARES]
    found = []
    for seed in range(settings.seeds):
        scores = _scores(study, seed, paths)
        for limit in limits:
            for by, number in _found(paths, scores, limit, how):
                place = {"supernet": seed, "limit": limit.value, "by": by}
                found.append({**place, "number": number})
        output.say(f"supernet {seed}: searched")
    # All searches have ended: now the truth.
    truth = table.accuracy(TRUTH, table.rows(flops.space, paths))
    for each in found:
        each["path"] = paths[each["number"]].tolist()
        each["accuracy"] = float(truth[each["number"]])
    rows = [row for limit in limits for row in _judge(found, limit, costs, truth)]
    plots.plot_found(
        costs,
        truth,
        {
            by: [(costs[e["number"]], e["accuracy"]) for e in found if e["by"] == by]
            for by in (RANDOM, EVOLUTION)
        },
        output.path("found.png"),
        limits=[limit.value for limit in limits],
        xlabel="FLOPs",
        ylabel="tabulated test accuracy",
    )
    note = (
        f"{settings.seeds} supernets, {how.searches} searches of {how.evaluations} "
        "evaluations on each. Tabulated test accuracy in %, means over all searches "
        "(sd over the supernets' means)."
    )
    report = {"preset": settings_dict(settings), "search": settings_dict(how)}
    output.report(report, {"rows": rows, "found": found, "note": note})
    output.write_table(_table(rows), note)


def _scores(study, seed, paths):
    """Scores of all networks of the space by a supernet, which is trained for it."""
    name = f"supernet_{seed}"
    known = study.output.done(name)
    if known is None:
        net = study.supernet(TRAINING, seed)
        study.train(net, name, TRAINING, seed)
        study.output.say(f"{name} trained")
        usual, more, *_ = ranking.SCORINGS
        scoring = more if study.settings.more_validation_per_class else usual
        score = study.evaluator(net, scoring)
        checkpoint = study.output.path("scores", f"{name}.npz")
        scores = ks.score_all(score, paths, checkpoint=checkpoint)
        known = study.output.finish(name, scores.tolist())
    return np.array(known)


def _found(paths, scores, limit, how):
    """What is found within a limit: pairs of how, and the number of a network."""
    space = limit.table.space
    numbers = {tuple(path): number for number, path in enumerate(paths.tolist())}

    def score(candidates):
        # As an `Evaluator` scores them, which has scored all.
        return scores[[numbers[tuple(path)] for path in candidates.tolist()]]

    common = {"limits": [limit], "topk": how.topk, "verbose": False}
    for seed in range(how.searches):
        sizes = {"population": how.population, "generations": how.generations}
        result = search.evolve(space, score, **sizes, **common, seed=seed)
        yield EVOLUTION, numbers[result.best.path]
        sizes = {"evaluations": how.evaluations, "batch": how.population}
        result = search.random_search(space, score, **sizes, **common, seed=seed)
        yield RANDOM, numbers[result.best.path]
    legal = np.flatnonzero(limit.satisfied(paths))
    yield HIGHEST, int(legal[scores[legal].argmax()])


def _judge(found, limit, costs, truth):
    """A row for each way to choose a network within a limit."""
    legal = costs <= limit.value
    within = truth[legal]
    largest = within[np.argsort(-costs[legal], kind="stable")[:10]]
    # For each way, and each supernet, the accuracies of what was chosen.
    chosen = {
        by: [
            [
                each["accuracy"]
                for each in found
                if (each["supernet"], each["limit"], each["by"]) == (n, limit.value, by)
            ]
            for n in sorted({each["supernet"] for each in found})
        ]
        for by in (EVOLUTION, RANDOM, HIGHEST)
    }
    chosen = {**chosen, MOST_FLOPS: [largest.tolist()], ANY: [within.tolist()]}
    return [
        {
            "limit": limit.value,
            "networks": len(within),
            "best": float(within.max()),
            "by": by,
            "accuracy": float(np.mean(accuracies)),
            "accuracy_sd": deviation(np.mean(accuracies, axis=1)),
            "regret": float(within.max() - np.mean(accuracies)),
            # Of the networks that the limit admits.
            "share_better": float(
                np.mean([(within > a).mean() for a in np.ravel(accuracies)])
            ),
        }
        for by, accuracies in chosen.items()
    ]


def _table(rows):
    return markdown_table(
        [
            "FLOPs limit (networks within it)",
            "best within it",
            "chosen by",
            "accuracy (sd)",
            "regret",
            "networks that are better, %",
        ],
        [
            [
                f"{row['limit'] / 1e6:.1f}M ({row['networks']:,})",
                f"{row['best']:.2f}",
                row["by"],
                f"{row['accuracy']:.2f} ({row['accuracy_sd']:.2f})",
                f"{row['regret']:.2f}",
                f"{100 * row['share_better']:.1f}",
            ]
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
