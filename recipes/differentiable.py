"""How FBNet and ProxylessNAS train a supernet, and single path: SPOS's Table 7.

The first two mix the options of a block, ``y = sum over i of g_i o_i(x)``, and learn
the gates' parameters a with the weights. For s_i = dL/dg_i = <dL/dy, o_i(x)>:

    FBNet         g = softmax((a + Gumbel noise) / T) over all options
                  dL/da = g (s - <g, s>) / T
    ProxylessNAS  weights: one option is drawn from softmax(a)
                  gates: two are drawn, p = softmax of their a; g is 1 for one of them,
                  drawn from p, and 0 for the other; dL/da = p (s - <p, s>)

All run the same compiled functions (`keras_spos.engine`), as single-path training in
`Supernet.fit` does, so that what is compared is the methods.

Example:
    >>> trainer = FBNet(net)                                       # doctest: +SKIP
    >>> trainer.train_step(images, labels)                         # doctest: +SKIP
"""

import keras
import numpy as np
from keras import ops

from keras_spos.engine.engine import Tape


class Gated:
    """Trains a compiled supernet of choice blocks whose options are mixed by gates.

    Args:
        net: A compiled `Supernet`.
        learning_rate: Adam's, for the gates' parameters.
        seed: Seed of the noise.
    """

    # Steps of weights for each step of gates: FBNet gives gates a fifth of the data.
    weight_steps = 4

    def __init__(self, net, learning_rate=0.01, seed=0):
        self.net = net
        self.parameters = [np.zeros(size) for size in net.space.sizes]
        self.learning_rate = learning_rate
        self.rng = np.random.default_rng(seed)
        self.moments = [np.zeros((2, size)) for size in net.space.sizes]
        self.gate_steps = 0
        self.steps = 0

    def train_step(self, x, y):
        """One step of the weights; every so often another one, of the gates.

        Returns:
            The loss.
        """
        loss = self._step(x, y, self.weight_gates(), weights=True)[0]
        self.steps += 1
        if self.weight_steps and self.steps % self.weight_steps == 0:
            gates = self.architecture_gates()
            _, slopes = self._step(x, y, gates, weights=False)
            self._update(self.gradients(gates, slopes))
        return loss

    def warm_up(self, x, y):
        """Runs every option once, and each kind of step, so that all is compiled."""
        sizes = self.net.space.sizes
        for option in range(max(sizes)):
            gates = [{min(option, int(size) - 1): 1.0} for size in sizes]
            self._step(x, y, gates, weights=True)
        for _ in range(self.weight_steps or 1):
            self.train_step(x, y)

    def weight_gates(self):
        """For each decision a dict from option to gate, for a step of the weights."""
        raise NotImplementedError

    def architecture_gates(self):
        """Likewise, for a step of the gates' parameters."""
        raise NotImplementedError

    def gradients(self, gates, slopes):
        """Gradients of the gates' parameters, from dL/dg of the options that ran."""
        raise NotImplementedError

    def _step(self, x, y, gates, weights):
        net = self.net
        net.build_head((x, y))
        engine, head = net.get_engine(), net.get_head()
        tape, records, outputs = self._forward(engine, x, gates)
        # The loss is reported without regularization, whose gradient is that of a 0.
        loss, _, _, (gradient, penalty) = head.differentiate(
            x, y, outputs, None, ops.zeros(())
        )
        groups, slopes = self._backward(engine, records, gradient, penalty)
        if weights:
            engine.apply(net.optimizer, groups)
            engine.commit(tape)
        return float(ops.convert_to_numpy(loss)), slopes

    def _forward(self, engine, x, gates):
        tape, records = Tape(), []
        tensors = dict(zip(engine.inputs, engine.convert([x]), strict=True))
        for position, step in enumerate(engine.steps):
            inputs = [tensors[key] for key in step.inputs]
            differentiable = tuple(key not in engine.inputs for key in step.inputs)
            fixed = step.layer is None
            chosen = {None: 1.0} if fixed else gates[step.decisions[0]]
            ran = []
            for option, gate in chosen.items():
                (unit,) = step.units_for(() if fixed else (option,))
                state = engine.state(unit, (0, self.steps, position), tape.pending)
                results, state, _, record = engine.runner.forward(
                    unit, inputs, differentiable, state
                )
                for variable, value in zip(unit.non_trainable, state, strict=True):
                    tape.pending[id(variable)] = value
                    tape.written[id(variable)] = variable
                # Behind a closed gate nothing is differentiated, so nothing is kept.
                ran.append((option, gate, unit, results, record if gate else None))
            mixed = [
                _sum([_scale(r[3][i], r[1]) for r in ran if r[1]])
                for i in range(len(step.outputs))
            ]
            tensors.update(zip(step.outputs, mixed, strict=True))
            if fixed:
                ran = [(option, g, unit, None, rec) for option, g, unit, _, rec in ran]
            records.append((step, differentiable, ran))
            for key in step.last_uses:
                del tensors[key]
        return tape, records, engine.pack(tensors)

    def _backward(self, engine, records, output_gradients, penalty_gradient):
        cotangents = {
            id(tensor): gradient
            for tensor, gradient in zip(
                engine.model.outputs, keras.tree.flatten(output_gradients), strict=True
            )
        }
        groups, slopes = [], {}
        while records:
            step, differentiable, ran = records.pop()
            given = [cotangents.pop(key) for key in step.outputs]
            for option, gate, unit, results, record in ran:
                if results is not None:
                    slope = sum(_dot(c, o) for c, o in zip(given, results, strict=True))
                    slopes.setdefault(step.decisions[0], {})[option] = slope
                if record is None:
                    continue
                scaled = [_scale(c, gate) for c in given]
                wanted, own = engine.runner.backward(record, scaled, penalty_gradient)
                keys = [
                    k for k, d in zip(step.inputs, differentiable, strict=True) if d
                ]
                for key, gradient in zip(keys, wanted, strict=True):
                    if gradient is not None:
                        known = cotangents.get(key)
                        cotangents[key] = (
                            gradient if known is None else known + gradient
                        )
                groups.append((unit, own))
        return groups, {
            decision: {
                option: float(ops.convert_to_numpy(s)) for option, s in d.items()
            }
            for decision, d in slopes.items()
        }

    def _update(self, gradients):
        """Adam."""
        self.gate_steps += 1
        t = self.gate_steps
        for parameters, moments, gradient in zip(
            self.parameters, self.moments, gradients, strict=True
        ):
            moments[0] += 0.1 * (gradient - moments[0])
            moments[1] += 0.001 * (gradient**2 - moments[1])
            mean, square = moments[0] / (1 - 0.9**t), moments[1] / (1 - 0.999**t)
            parameters -= self.learning_rate * mean / (np.sqrt(square) + 1e-8)


class SinglePath(Gated):
    """One option, drawn uniformly, and no gates to learn (SPOS)."""

    weight_steps = None

    def weight_gates(self):
        """One option of each decision."""
        return [{int(self.rng.integers(n)): 1.0} for n in self.net.space.sizes]


class FBNet(Gated):
    """All options at once, by Gumbel softmax (Wu et al., 2019).

    Args:
        net: See `Gated`.
        temperature: T.
        **options: Other arguments of `Gated`.
    """

    def __init__(self, net, temperature=5.0, **options):
        super().__init__(net, **options)
        self.temperature = temperature

    def weight_gates(self):
        """Softmax of noisy parameters."""
        noisy = [a + self.rng.gumbel(size=len(a)) for a in self.parameters]
        return [dict(enumerate(_softmax(a / self.temperature))) for a in noisy]

    architecture_gates = weight_gates

    def gradients(self, gates, slopes):
        """See the module's formula."""
        return [
            _slope(np.array(list(g.values())), slopes[d], len(g)) / self.temperature
            for d, g in enumerate(gates)
        ]


class ProxylessNAS(Gated):
    """One option for the weights, two binarised for the gates (Cai et al., 2019)."""

    # As in the authors' code.
    weight_steps = 5

    def weight_gates(self):
        """One option, drawn from the softmax."""
        return [
            {int(self.rng.choice(len(a), p=_softmax(a))): 1.0} for a in self.parameters
        ]

    def architecture_gates(self):
        """Two options, one of them open."""
        gates = []
        for a in self.parameters:
            count = min(2, len(a))
            pair = self.rng.choice(len(a), count, replace=False, p=_softmax(a))
            opened = self.rng.choice(pair, p=_softmax(a[pair]))
            gates.append({int(i): float(i == opened) for i in pair})
        return gates

    def gradients(self, gates, slopes):
        """See the module's formula; 0 for options that were not drawn."""
        result = []
        for d, (a, g) in enumerate(zip(self.parameters, gates, strict=True)):
            pair = list(g)
            gradient = np.zeros(len(a))
            p = _softmax(a[pair])
            s = np.array([slopes[d][i] for i in pair])
            gradient[pair] = p * (s - p @ s)
            result.append(gradient)
        return result


def _slope(gates, slopes, count):
    s = np.array([slopes[i] for i in range(count)])
    return gates * (s - gates @ s)


def _softmax(a):
    e = np.exp(a - a.max())
    return e / e.sum()


def _scale(x, gate):
    return x if gate == 1.0 else x * ops.cast(gate, x.dtype)


def _sum(values):
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def _dot(a, b):
    return ops.sum(a * b)
