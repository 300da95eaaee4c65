"""Latency tables: measures a space's blocks on real hardware, for latency limits.

    python -m hardware blocks --space proxyless --batch 32 --networks 60 --out blocks/
    python -m hardware measure blocks/ --engine onnxruntime --out table.json
    python -m hardware check blocks/ --table table.json
    python -m hardware predict table.json --path 0,6,6,6,2,...
    python -m hardware compare table.json other.json

Blocks of a supernet of one's own: ``hardware.blocks.export_blocks(net, "blocks/")``.
`blocks` runs where Keras is; everything else needs numpy and an inference engine alone,
so the folder of blocks (and this one) is what travels to the device. The table comes
back: ``ks.CostTable.load("table.json") <= 20`` is a limit of 20 ms.

It is used as ``python -m hardware`` in a checkout; the wheel has it as
``keras_spos.hardware``. Nothing in `keras_spos` imports it.
"""
