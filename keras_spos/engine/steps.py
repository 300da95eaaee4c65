"""Cuts a Functional model into steps: which units run, and on which tensors."""

import dataclasses
import functools

import keras
from keras.src.backend import get_keras_mask

from keras_spos.engine.units import Unit
from keras_spos.graph import nodes, unique
from keras_spos.layers.searchable import MASKED, SearchableLayer
from keras_spos.signatures import signature


@dataclasses.dataclass
class Step:
    """One step of a program: which tensors it reads and writes, and its units.

    Args:
        inputs: Keys of the tensors read.
        outputs: Keys of the tensors written.
        unit: The unit, if the step is fixed.
        layer: The searchable layer, if it is not.
        stage: Which of the searchable layer's stages this is.
        decisions: Indices into the path of the searchable layer's decisions.
        make_unit: Makes the unit of a layer: ``make_unit(layer, views)``.
        last_uses: Keys of tensors that no later step reads.
        choices: The units of each joint choice that was asked for.
        units: The units made so far, by the id of their layer.
    """

    inputs: tuple
    outputs: tuple
    unit: Unit | None = None
    layer: SearchableLayer | None = None
    stage: int = 0
    decisions: tuple[int, ...] = ()
    make_unit: object = None
    last_uses: tuple = ()
    choices: dict = dataclasses.field(default_factory=dict)
    units: dict = dataclasses.field(default_factory=dict)

    def units_for(self, choices):
        """The units that run for ``choices``; their outputs are added."""
        if self.layer is None:
            return (self.unit,)
        if choices not in self.choices:
            views = self.layer.views(choices)
            layers = self.layer.stages(choices)[self.stage]
            for layer in layers:
                if id(layer) not in self.units:
                    self.units[id(layer)] = self.make_unit(layer, views)
            self.choices[choices] = tuple(self.units[id(layer)] for layer in layers)
        return self.choices[choices]


def logits_key(key):
    """Key of what a tensor is the softmax or the sigmoid of, from its own."""
    return "logits", key


def cut(model, space=None, logits_of=None):
    """Cuts a Functional model into `Step`s in an order in which they can run.

    Args:
        model: A Functional model.
        space: Its `SearchSpace`, or None.
        logits_of: Which outputs of a call a loss reads the logits of:
            ``logits_of(call, inputs)``, or None.
    """
    indices = {d.name: i for i, d in enumerate(space.decisions)} if space else {}
    runs = []
    for node in nodes(model):
        fixed = not isinstance(node.operation, SearchableLayer)
        if fixed and runs and runs[-1][0]:
            runs[-1][1].append(node)
        else:
            runs.append((fixed, [node]))
    outputs = {id(t) for t in model.outputs}
    steps = []
    for position, (fixed, run) in enumerate(runs):
        made = _unique(id(t) for node in run for t in node.outputs)
        read = _unique(
            id(t) for node in run for t in node.input_tensors if id(t) not in set(made)
        )
        later = {
            id(t) for _, r in runs[position + 1 :] for n in r for t in n.input_tensors
        }
        later |= outputs
        written = [t for t in made if t in later]
        _check_no_mask(run, written)
        specs = {id(t): t for node in run for t in node.input_tensors}
        specs = [specs[key] for key in read]

        def logits_among(call, written=written, specs=specs):
            """Keys of the model's outputs among those of a call that have logits."""
            if logits_of is None or outputs.isdisjoint(written):
                return []
            found = [written[i] for i in logits_of(call, specs)]
            return [key for key in found if key in outputs]

        if fixed:
            unit, logits = _fixed_unit(run, read, written, logits_among)
            written = (*written, *map(logits_key, logits))
            steps.append(Step(tuple(read), written, unit))
        else:
            read, written = tuple(read), tuple(written)
            steps += _choice_steps(run[0], read, written, indices, logits_among)
    kept = set(outputs)
    for step in reversed(steps):
        step.last_uses = tuple(t for t in step.inputs if t not in kept)
        kept |= set(step.inputs)
    return steps


def _check_no_mask(run, written):
    for node in run:
        for tensor in node.outputs:
            if get_keras_mask(tensor) is not None and id(tensor) in written:
                raise ValueError(MASKED.format(node.operation.name))


def _fixed_unit(run, read, written, logits_among):
    """The unit of some nodes, and which outputs it gives the logits of."""

    def compute(inputs, training):
        tensors = dict(zip(read, inputs, strict=True))
        for node in run:
            args, kwargs = node.arguments.fill_in(tensors)
            if isinstance(node.operation, keras.layers.Layer):
                # Whether it takes that or hands it on to layers inside it.
                kwargs = {**kwargs, "training": training}
            outputs = node.operation(*args, **kwargs)
            for symbolic, value in zip(
                node.outputs, keras.tree.flatten(outputs), strict=True
            ):
                tensors[id(symbolic)] = value
        return [tensors[key] for key in written]

    def call(inputs, training):
        return _with_logits(compute(inputs, training), written, logits)

    logits = logits_among(compute)
    operations = unique(n.operation for n in run)
    layers = [x for x in operations if isinstance(x, keras.layers.Layer)]
    key = signature([n.operation for n in run], _wiring(run, read, written + logits))
    return Unit(call, layers, key, operations=operations), logits


def _with_logits(outputs, written, logits):
    return outputs + [outputs[written.index(key)]._keras_logits for key in logits]


def _choice_steps(node, read, written, indices, logits_among):
    """The steps of a searchable layer, one per stage."""
    searchable = node.operation
    decisions = tuple(indices[d.name] for d in searchable.decisions)
    count = len(searchable.stages((0,) * len(decisions)))
    # Between stages there are tensors that the model's graph does not know.
    between = [((id(node), stage),) for stage in range(1, count)]
    steps = []
    for stage, (inputs, outputs) in enumerate(
        zip([read, *between], [*between, written], strict=True)
    ):
        make_unit = functools.partial(
            _choice_unit, node, read, written, stage, count == 1 and logits_among
        )
        steps.append(
            Step(inputs, outputs, None, searchable, stage, decisions, make_unit)
        )
    return steps


def _choice_unit(node, read, written, stage, logits_among, layer, views):
    def compute(inputs, training):
        args, kwargs = inputs, {}
        if stage == 0:
            args, kwargs = node.arguments.fill_in(dict(zip(read, inputs, strict=True)))
        outputs = node.operation.run_part(
            layer, *args, **{**kwargs, "training": training}
        )
        return keras.tree.flatten(outputs)

    def call(inputs, training):
        return _with_logits(compute(inputs, training), written, logits)

    # Of a slice of weights there are no values yet.
    logits = logits_among(compute) if logits_among and not views else []
    wiring = [written.index(key) for key in logits]
    return Unit(call, [layer], signature([layer], wiring), views, logits=logits)


_PLAIN = (type(None), type(...), bool, int, float, complex, str, slice)


def _wiring(run, read, written):
    """How the nodes of a run are connected, with tensors numbered instead of named."""
    numbers = {key: i for i, key in enumerate(read)}
    for node in run:
        for tensor in node.outputs:
            numbers.setdefault(id(tensor), len(numbers))

    def number(value):
        if id(value) in numbers:
            return f"t{numbers[id(value)]}"
        # Of large arrays, `repr` leaves most out.
        return repr(value) if isinstance(value, _PLAIN) else id(value)

    arguments = [(n.arguments.args, n.arguments.kwargs) for n in run]
    return keras.tree.map_structure(number, arguments), [numbers[t] for t in written]


def _unique(keys):
    return list(dict.fromkeys(keys))
