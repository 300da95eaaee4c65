"""SPOS, Figure 2: evolutionary against random architecture search.

    python -m recipes.spos_figure2 --preset small --data-dir DIR

Both look at the same supernet, under the same limit, with as many evaluations. With
``--supernet FILE`` (such as supernet.keras of spos_table3) none is trained.
"""

from keras_spos import plots
from recipes import spos
from recipes.common import Output, existing_file, parser_for, settings_dict


def main():
    """Runs the recipe."""
    parser = parser_for(__doc__.splitlines()[0], list(spos.PRESETS))
    parser.add_argument(
        "--supernet", type=existing_file, help="a trained supernet of the same preset"
    )
    args = parser.parse_args()
    settings = spos.PRESETS[args.preset]
    output = Output("spos_figure2", args)
    experiment = spos.Experiment(settings, output, args)
    net = experiment.net
    if args.supernet:
        net.load_weights(args.supernet)
    else:
        net.sampler = experiment.constraint_sampler()
        experiment.train(net, "supernet", settings.supernet_epochs)
        output.save(net, "supernet")

    score = experiment.evaluator(net)
    results = {
        "evolutionary search": experiment.evolve(score),
        "random search": experiment.random_search(score),
    }
    plots.plot_history(results, path=output.path("figure2.png"))
    for name, result in results.items():
        result.history.to_csv(output.path(f"{name.replace(' ', '_')}.csv"))
        output.say(f"{name}: best {result.best}")
    output.report(
        settings_dict(settings),
        {
            "limit": experiment.limit.value,
            **{
                name: {
                    "best": result.best.__dict__,
                    "by_generation": result.history.by_generation(settings.topk),
                }
                for name, result in results.items()
            },
        },
    )


if __name__ == "__main__":
    main()
