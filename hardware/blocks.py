"""Exports what a space is made of to ONNX: each unique block once, with a manifest.

A block is an option of a searchable layer, or a run of layers that every path has. Two
blocks are one if they compute the same on inputs of the same shape. Inside a network,
images are handed on with channels first, so that is how the blocks take and give them;
only the network's own input and output have Keras' layout.

The only part of `hardware` that imports Keras.

Example:
    >>> net = keras_spos.spaces.proxyless()                        # doctest: +SKIP
    >>> export_blocks(net, "blocks", batch=32, networks=60)        # doctest: +SKIP
"""

import hashlib
import inspect
import json
import os

import keras
import numpy as np

import keras_spos as ks
from keras_spos import spaces
from keras_spos.dependence import check_none_is_left_out
from keras_spos.engine.steps import cut
from keras_spos.extraction import extract
from keras_spos.graph import functional, nodes

from .half import to_half
from .manifest import FORMAT, Manifest, sha256
from .progress import progress

PRECISIONS = ("fp32", "fp16")


def export_space(name, arguments, folder, **options):
    """Builds one of `keras_spos.spaces` and exports its blocks.

    Args:
        name: The space's name, such as "proxyless".
        arguments: Arguments of its builder.
        folder: The folder to write.
        **options: Further arguments of `export_blocks`.
    """
    net = build(name, arguments)
    source = {"space": name, "arguments": arguments}
    return export_blocks(net, folder, source=source, **options)


def build(name, arguments):
    """Builds one of `keras_spos.spaces`."""
    builders = [n for n in spaces.__all__ if _is_builder(getattr(spaces, n))]
    if name not in builders:
        raise ValueError(f"Spaces are {builders}. Received: {name!r}")
    builder = getattr(spaces, name)
    known = list(inspect.signature(builder).parameters)
    unknown = isinstance(arguments, dict) and set(arguments) - set(known)
    if not isinstance(arguments, dict) or (unknown and not _passes_on(builder)):
        raise ValueError(
            f"Expected arguments of {name} as a dict, among {known}. "
            f"Received: {arguments!r}"
        )
    try:
        return builder(**arguments)
    except TypeError as error:
        raise ValueError(
            f"{name} cannot be built with the arguments {arguments!r}: {error}"
        ) from error


def _is_builder(function):
    """Whether it makes a supernet: of images, with a sampler or what it passes on."""
    names = list(inspect.signature(function).parameters)
    return names[0] == "input_shape" and ("sampler" in names or _passes_on(function))


def _passes_on(function):
    """Whether it takes any arguments, such as `mixpath_s3` those of `mixpath_s2`."""
    parameters = inspect.signature(function).parameters.values()
    return any(p.kind is p.VAR_KEYWORD for p in parameters)


def export_blocks(
    net,
    folder,
    batch=1,
    precision="fp32",
    networks=0,
    seed=0,
    opset=17,
    source=None,
    verbose=True,
):
    """Exports the unique blocks of a supernet, and some whole networks.

    Args:
        net: A `Supernet` with fixed image size.
        folder: The folder to write.
        batch: Batch size of the files.
        precision: "fp32" or "fp16": the type of weights, inputs and outputs.
        networks: How many random networks to export whole, for `check`.
        seed: Seed of the random networks.
        opset: ONNX operator set version.
        source: How to build the supernet again; see `export_space`.
        verbose: Whether to show progress.

    Returns:
        The `Manifest`.

    Raises:
        ValueError: An argument is none of the above, or an option leaves out an input
            of its block, and so what is before it.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is one of {PRECISIONS}. Received: {precision!r}")
    if batch < 1 or networks < 0:
        raise ValueError(
            "Expected batch >= 1 and networks >= 0. "
            f"Received: batch={batch}, networks={networks}"
        )
    check_none_is_left_out(net, "latency")
    os.makedirs(folder, exist_ok=True)
    files, base, blocks = {}, [], []
    pieces = list(_pieces(net))
    total = sum(int(np.prod(p["sizes"])) for p in pieces)
    settings = {"batch": batch, "precision": precision, "opset": opset}
    with progress(total, "blocks", verbose) as show:
        for piece in pieces:
            options = np.empty(piece["sizes"], dtype=object)
            for choices in np.ndindex(*piece["sizes"]):
                options[choices] = _export(piece, choices, folder, files, settings)
                show.update()
            if piece["decisions"]:
                blocks.append(
                    {
                        "name": piece["name"],
                        "decisions": list(piece["decisions"]),
                        "options": options.tolist(),
                    }
                )
            elif options[()] is not None:
                base.append(options[()])
    manifest = Manifest(
        folder,
        {
            "format": FORMAT,
            "name": net.name,
            "source": source,
            **settings,
            "space": json.loads(net.space.to_json()),
            "network": net.space.network,
            # A block without a file computes nothing.
            "files": {k: f for k, f in files.items() if f},
            "layout": {"base": base, "blocks": blocks},
            "networks": {},
        },
    )
    manifest.save()
    if networks:
        export_networks(net, manifest, networks, seed, verbose)
    return manifest


def export_networks(net, manifest, count, seed=0, verbose=True):
    """Exports random networks whole, as many as are missing, and notes their paths.

    Args:
        net: The `Supernet` whose blocks were exported.
        manifest: The blocks' `Manifest`.
        count: How many networks there will be.
        seed: Seed of the random networks.
        verbose: Whether to show progress.
    """
    # Folders of earlier versions have no "network".
    exported = manifest.data["space"], manifest.data.get("network", net.space.network)
    if exported != (json.loads(net.space.to_json()), net.space.network):
        raise ValueError(
            f"Expected the supernet of the blocks in {manifest.folder}. Received: "
            f"another, {net.name!r}, of {net.space}."
        )
    os.makedirs(os.path.join(manifest.folder, "networks"), exist_ok=True)
    known = {tuple(n["path"]) for n in manifest.networks.values()}
    drawn = (tuple(map(int, p)) for p in net.space.sample(20 * count, seed))
    paths = [p for p in dict.fromkeys(drawn) if p not in known]
    missing = paths[: max(0, count - len(known))]
    if len(missing) + len(known) < count:
        raise ValueError(
            f"The space is too small for {count} different random networks. "
            f"Received: {net.space}."
        )
    with progress(len(missing), "networks", verbose) as show:
        for path in missing:
            name = str(len(manifest.networks))
            entry = {"file": f"networks/{name}.onnx", "path": list(path)}
            _write(net.extract(path, fresh=True), manifest.path(entry), manifest.data)
            entry["sha256"] = sha256(manifest.path(entry))
            manifest.networks[name] = entry
            show.update()
    manifest.save()


def _pieces(net):
    """The runs of fixed layers and the searchable layers, in graph order."""
    made = [t for node in nodes(net) for t in node.outputs]
    tensors = {id(t): t for t in [*net.inputs, *made]}
    ends = {id(t) for t in [*net.inputs, *net.outputs]}
    pieces = []
    for step in cut(net, net.space):
        # A searchable layer may be several steps, or be applied to what it gave.
        last = pieces[-1][-1] if pieces else None
        if not last or last.layer is not step.layer or last.outputs != step.inputs:
            pieces.append([])
        pieces[-1].append(step)
    for number, steps in enumerate(pieces):
        first, last = steps[0], steps[-1]
        model = keras.Model(
            [tensors[k] for k in first.inputs], [tensors[k] for k in last.outputs]
        )
        yield {
            "name": first.layer.name if first.layer else f"fixed_{number}",
            "layer": first.layer,
            "model": model,
            "inside": (
                [k not in ends for k in first.inputs],
                [k not in ends for k in last.outputs],
            ),
            "applied": sum(step.stage == 0 for step in steps),
            "decisions": first.decisions,
            "space": ks.SearchSpace([net.space.decisions[d] for d in first.decisions]),
            "sizes": tuple(int(net.space.sizes[d]) for d in first.decisions),
        }


def _export(piece, choices, folder, files, settings):
    """Exports one option of a piece unless it is known; returns its key, or None."""
    layer, model = piece["layer"], piece["model"]
    what = layer.picked(choices) if layer else model
    inputs = [[settings["batch"], *t.shape[1:]] for t in model.inputs]
    text = json.dumps(
        [*[_describe(what)] * piece["applied"], inputs, piece["inside"], settings],
        sort_keys=True,
        default=repr,
    )
    labels = piece["space"].describe(choices).values() if choices else [piece["name"]]
    label = "+".join(labels)
    key = f"{label}-{hashlib.sha1(text.encode()).hexdigest()[:8]}"
    same = [k for k in files if k.endswith(key[-8:])]
    if not same:
        files[key] = _entry(piece, choices, folder, key, label, inputs, settings)
        same = [key]
    return same[0] if files[same[0]] else None


def _entry(piece, choices, folder, key, label, inputs, settings):
    model = extract(piece["model"], piece["space"], choices, fresh=True)
    outputs = [[settings["batch"], *t.shape[1:]] for t in model.outputs]
    name = "".join(c if c.isalnum() or c in "-_+." else "_" for c in key) + ".onnx"
    path = os.path.join(folder, name)
    names = [t.name for t in model.inputs], model.output_names
    inside = [
        n
        for ends, flags in zip(names, piece["inside"], strict=True)
        for n, flag in zip(ends, flags, strict=True)
        if flag
    ]
    report = _write(model, path, settings, inside)
    if set(report.nodes) <= {"Identity"}:
        os.remove(path)
        return None
    strides = [
        i[1] / o[1] for i, o in zip(inputs, outputs, strict=False) if len(i) == len(o)
    ]
    return {
        "file": name,
        "sha256": sha256(path),
        "label": label,
        "inputs": inputs,
        "outputs": outputs,
        "stride": round(strides[0]) if strides else None,
        "flops": ks.count_flops(model),
        "params": ks.count_params(model),
        "precision": settings["precision"],
    }


def _write(model, path, settings, channels_first=()):
    report = ks.to_onnx(
        model,
        path,
        batch_size=settings["batch"],
        opset=settings["opset"],
        # The exporter is tested; what counts here is the time that it takes.
        verify=False,
        channels_first=channels_first,
    )
    if settings["precision"] == "fp16":
        to_half(path)
    return report


def _describe(operation):
    """What an operation computes, apart from names and values of weights."""
    operation = functional(operation)
    if not hasattr(operation, "_nodes_by_depth"):
        config = {
            key: value
            for key, value in operation.get_config().items()
            if key not in ("name", "trainable")
            and not key.endswith(("_initializer", "_regularizer", "_constraint"))
        }
        return [type(operation).__name__, config]
    numbers = {id(t): i for i, t in enumerate(operation.inputs)}
    lines = []
    for node in nodes(operation):
        arguments = keras.tree.map_structure(
            lambda value: (
                f"t{numbers[id(value)]}" if id(value) in numbers else repr(value)
            ),
            [node.arguments.args, node.arguments.kwargs],
        )
        lines.append([_describe(node.operation), repr(arguments)])
        for tensor in node.outputs:
            numbers[id(tensor)] = len(numbers)
    return [lines, [numbers[id(t)] for t in operation.outputs]]
