"""What is every searcher given, and is it that? Checked before anything is scored."""

import operator

from keras_spos.costs import CostTable, Limit
from keras_spos.space import SearchSpace


def checked_space(space):
    """A `SearchSpace`, or an error that says so."""
    if not isinstance(space, SearchSpace):
        raise ValueError(
            f"Expected a SearchSpace, such as net.space. Received: {type(space)}"
        )
    return space


def checked_limits(limits):
    """One `Limit` or several, as a tuple."""
    limits = (limits,) if isinstance(limits, (Limit, CostTable)) else tuple(limits)
    for limit in limits:
        if not isinstance(limit, Limit):
            raise ValueError(
                "A limit is a table compared with a value, such as flops <= 330e6. "
                f"Received: {limit!r}"
            )
    return limits


def checked_initial(paths, space, limits, population):
    """Paths that a search begins with, as a list of different tuples."""
    if not len(paths):
        return []
    array = checked_space(space).validate(paths)
    for limit in checked_limits(limits):
        wrong = array[~limit.satisfied(array)]
        if len(wrong):
            raise ValueError(
                f"Expected initial paths with {limit.table.name} <= {limit.value:g}. "
                f"Received: {tuple(wrong[0].tolist())}, of {limit.table(wrong)[0]:g}."
            )
    different = list(dict.fromkeys(map(tuple, array.tolist())))
    if len(different) > population:
        raise ValueError(
            f"Expected at most as many initial paths as a generation has, {population}."
            f" Received: {len(different)}."
        )
    return different


def checked_objectives(tables):
    """One table or several, as a tuple."""
    one = isinstance(tables, Limit) or callable(tables)
    tables = (tables,) if one else tuple(tables)
    if not tables:
        raise ValueError("nsga2 needs a table to minimize, such as minimize=[flops].")
    for table in tables:
        if isinstance(table, Limit):
            raise ValueError(
                "minimize takes cost tables; a limit such as "
                f"`{table.table.name} <= {table.value:g}` goes into limits=[...]."
            )
        if not callable(table) or not hasattr(table, "reachable_range"):
            raise ValueError(
                "minimize takes cost tables, or callables as search.Objective(space, "
                f"function, name). Received: {table!r}"
            )
    return tables


def check_integers(minimum, **values):
    """Raises ValueError unless all values are integers of at least `minimum`."""
    for name, value in values.items():
        try:
            if operator.index(value) >= minimum:
                continue
        except TypeError:
            pass
        raise ValueError(
            f"{', '.join(values)}: integers of at least {minimum}. "
            f"Received: {name}={value!r}"
        )
