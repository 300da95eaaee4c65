"""The experiment of SPOS's Table 5: mobile space, published baselines, a latency table.

``paper`` is the paper's setting. ``small`` and ``smoke`` take the first blocks of each
stage, of the supernet and of the published networks alike, at a part of the channels.
"""

import dataclasses
import functools
import os

import numpy as np

import keras_spos as ks
from hardware import engines, measure
from hardware.blocks import export_blocks, export_networks
from hardware.check import check, describe, save
from hardware.manifest import read_manifest
from hardware.table import make_table
from keras_spos import spaces
from keras_spos.spaces.fbnet import HEADS
from keras_spos.spaces.fbnet import NAMED as FBNETS
from keras_spos.spaces.fbnet import STAGES as FBNET_STAGES
from keras_spos.spaces.fbnet import STEM as FBNET_STEM
from keras_spos.spaces.proxyless import BLOCKS, STRIDES, WIDTHS
from keras_spos.spaces.proxyless import NAMED as PROXYLESS
from recipes import spos

BASELINES = {
    "FBNet-A": "fbnet_a",
    "FBNet-B": "fbnet_b",
    "FBNet-C": "fbnet_c",
    "Proxyless-R (mobile)": "proxyless_mobile",
    "Proxyless (GPU)": "proxyless_gpu",
}


@dataclasses.dataclass(frozen=True)
class Settings(spos.Settings):
    """One preset; see `spos.Settings`.

    Args:
        width: Channels, as a part of the published ones.
        depth: Blocks of each stage that are kept, at most.
        first_stride: Stride of the first stage of choice blocks; 1 suits small images.
        latency_batch: Batch size at which latency is measured.
        networks: Whole networks that check the latency table.
        measure: Arguments of `hardware.measure.Settings`.
        clock: Clock of a CPU; see `hardware.engines.open_engine`.
        baselines: Names of the published networks to compare with.
    """

    width: float = 1.0
    depth: int = 4
    first_stride: int = 2
    latency_batch: int = 32
    networks: int = 60
    measure: dict = dataclasses.field(default_factory=dict)
    clock: str = "wall"
    baselines: tuple = tuple(BASELINES)


class Experiment(spos.Experiment):
    """Data, supernet, evaluator, baselines and latency table of one preset."""

    def __init__(self, settings, output, args):
        build = functools.partial(
            spaces.proxyless,
            widths=_scaled(WIDTHS["mobile"], settings.width),
            stage_blocks=[min(n, settings.depth) for n in BLOCKS],
            stage_strides=(settings.first_stride, *STRIDES[1:]),
        )
        super().__init__(settings, output, args, build)

    def baseline(self, name):
        """A published network, untrained."""
        s = self.settings
        which = BASELINES[name]
        if which in PROXYLESS:
            widths = WIDTHS[which.removeprefix("proxyless_")]
            blocks = [min(n, s.depth) for n in BLOCKS]
            net = spaces.proxyless(
                **s.space,
                widths=_scaled(widths, s.width),
                stage_blocks=blocks,
                stage_strides=(s.first_stride, *STRIDES[1:]),
                l2=s.l2,
            )
            labels = _first_blocks(PROXYLESS[which], BLOCKS, blocks)
        else:
            strides = [stride for _, _, stride in FBNET_STAGES]
            strides[1] = s.first_stride  # that of the first choice blocks
            stages = [
                (_channels(c, s.width), min(n, s.depth), stride)
                for (c, n, _), stride in zip(FBNET_STAGES, strides, strict=True)
            ]
            net = spaces.fbnet(
                **s.space,
                stem_channels=_channels(FBNET_STEM, s.width),
                stages=stages,
                head_channels=_channels(HEADS[which], s.width),
                l2=s.l2,
            )
            labels = _first_blocks(
                FBNETS[which],
                [n for _, n, _ in FBNET_STAGES],
                [n for _, n, _ in stages],
            )
        names = [d.name for d in net.space.decisions]
        return net.extract(dict(zip(names, labels, strict=True)), fresh=True)

    def open_engine(self, args):
        """The engine that all latencies are measured on."""
        clock = self.settings.clock if args.device == "cpu" else "wall"
        return engines.open_engine(args.engine, args.device, clock=clock)

    def latency_table(self, engine):
        """Measures the supernet's blocks and whole networks; returns a `CostTable`."""
        path = self.output.path("latency.json")
        report = self.output.done("latency")
        if report is None:
            manifest = self._blocks()
            settings = measure.Settings(**self.settings.measure)
            files = {key: manifest.path(f) for key, f in manifest.files.items()}
            results = measure.measure(
                files, engine, f"{path}.log", settings, f"blocks {manifest.digest}"
            )
            make_table(
                manifest,
                results,
                engine.describe(),
                dataclasses.asdict(settings),
                engine.clocks(),
            ).save(path)
            report = check(manifest, path, engine, f"{path}.check.log", settings)
            save(report, self.output.path("latency-check.json"))
            self.output.finish("latency", report)
        self.output.say(describe(report))
        return ks.CostTable.load(path)

    def _blocks(self):
        """Exports the supernet's blocks and whole networks; returns the `Manifest`."""
        file = self.output.path("blocks", "manifest.json")
        folder = os.path.dirname(file)
        if not os.path.exists(file):
            export_blocks(self.net, folder, batch=self.settings.latency_batch)
        manifest = read_manifest(folder)
        # The manifest is there before the networks: a kill may have left them out.
        export_networks(self.net, manifest, self.settings.networks, self.seed)
        return manifest

    def measured_latency(self, model, name, engine):
        """Latency of a whole network in ms, on the engine of the table."""
        path = self.output.path("onnx", f"{name}.onnx")
        ks.to_onnx(model, path, self.settings.latency_batch, verify=False)
        log = self.output.path("onnx", f"{name}.log")
        settings = measure.Settings(**self.settings.measure)
        results = measure.measure({name: path}, engine, log, settings, verbose=False)
        if "error" in results[name]:
            raise SystemExit(f"{path} was not measured: {results[name]['error']}")
        return results[name]["latency_ms"]


def _channels(channels, width):
    # Multiples of 4, which vector units like, where channels are scaled at all.
    return channels if width == 1 else max(4, int(round(channels * width / 4)) * 4)


def _scaled(widths, width):
    stem, first, stages, head = widths
    return (
        _channels(stem, width),
        _channels(first, width),
        tuple(_channels(c, width) for c in stages),
        _channels(head, width),
    )


def _first_blocks(labels, stages, kept):
    """The labels of the first blocks of each stage."""
    ends = np.cumsum(stages)
    return [
        label
        for end, n, k in zip(ends, stages, kept, strict=True)
        for label in labels[end - n : end - n + k]
    ]
