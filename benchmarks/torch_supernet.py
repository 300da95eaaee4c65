"""The space of SPOS's Table 2 in PyTorch, trained one path a step, to compare with.

Written as a PyTorch user would: every option a module of its block, of which `forward`
runs one; gradients of the others stay None, so the optimizer passes them by.
"""

import contextlib
import importlib
import io
import sys

import torch
from torch import nn

STAGES = ((64, 4), (160, 4), (320, 8), (640, 4))
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class TorchStep:
    """One training step: SGD with momentum on cross entropy."""

    def __init__(self):
        self.net = Supernet().to(DEVICE)
        self.optimizer = torch.optim.SGD(self.net.parameters(), 0.01, momentum=0.9)

    def __call__(self, x, y, path):
        """Trains a path on a batch of images ``[n, height, width, 3]``."""
        x, y = _tensors(x, y)
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.net(x, path)
        loss = nn.functional.cross_entropy(logits, y)
        loss.backward()
        self.optimizer.step()
        return loss.item()


class AuthorsStep:
    """The same of SPOS's released code: its network, loss and loop, less the reports.

    Args:
        folder: ``src/Supernet`` of a copy of megvii-model/SinglePathOneShot.
    """

    def __init__(self, folder):
        sys.path.insert(0, folder)
        try:
            network, utils = (importlib.import_module(n) for n in ("network", "utils"))
        finally:
            sys.path.remove(folder)
        with contextlib.redirect_stdout(io.StringIO()):
            self.net = network.ShuffleNetV2_OneShot()
        # Theirs fits images of 224 px alone.
        self.net.globalpool = nn.AdaptiveAvgPool2d(1)
        self.net.to(DEVICE)
        self.loss = utils.CrossEntropyLabelSmooth(1000, 0.1).to(DEVICE)
        self.optimizer = torch.optim.SGD(
            utils.get_parameters(self.net), lr=0.5, momentum=0.9, weight_decay=4e-5
        )

    def __call__(self, x, y, path):
        """Trains a path on a batch of images ``[n, height, width, 3]``."""
        x, y = _tensors(x, y)
        loss = self.loss(self.net(x, path), y)
        self.optimizer.zero_grad()
        loss.backward()
        # So they keep the momentum of options that are not on the path from moving.
        for parameter in self.net.parameters():
            if parameter.grad is not None and parameter.grad.sum() == 0:
                parameter.grad = None
        self.optimizer.step()
        return loss.item()


class Supernet(nn.Module):
    """Stem, 20 blocks of four options, head."""

    def __init__(self, classes=1000):
        super().__init__()
        self.stem = _convolution(3, 16, 3, 2, relu=True)
        self.blocks = nn.ModuleList()
        channels = 16
        for width, repeat in STAGES:
            for position in range(repeat):
                stride = 2 if position == 0 else 1
                self.blocks.append(
                    nn.ModuleList(
                        Option(channels, width, kind, stride) for kind in (3, 5, 7, "x")
                    )
                )
                channels = width
        self.head = _convolution(channels, 1024, 1, relu=True)
        self.classifier = nn.Sequential(
            nn.Dropout(0.1), nn.Linear(1024, classes, bias=False)
        )

    def forward(self, x, path):
        """Logits of a path."""
        x = self.stem(x)
        for block, choice in zip(self.blocks, path, strict=True):
            x = block[int(choice)](x)
        return self.classifier(self.head(x).mean((2, 3)))


class Option(nn.Module):
    """One option of a block; at stride 1 it works on the odd channels alone."""

    def __init__(self, channels, width, kind, stride):
        super().__init__()
        self.stride = stride
        kernel = 3 if kind == "x" else kind
        given = channels // 2 if stride == 1 else channels
        out, mid = width - given, width // 2
        if kind == "x":
            parts, before = [], given
            for after, step in ((mid, stride), (mid, 1), (out, 1)):
                parts.append(_convolution(before, before, 3, step, groups=before))
                parts.append(_convolution(before, after, 1, relu=True))
                before = after
        else:
            parts = [
                _convolution(given, mid, 1, relu=True),
                _convolution(mid, mid, kernel, stride, groups=mid),
                _convolution(mid, out, 1, relu=True),
            ]
        self.main = nn.Sequential(*parts)
        self.shortcut = None
        if stride == 2:
            self.shortcut = nn.Sequential(
                _convolution(given, given, kernel, 2, groups=given),
                _convolution(given, given, 1, relu=True),
            )

    def forward(self, x):
        """Runs the option."""
        kept, worked = (x, x) if self.shortcut else (x[:, 0::2], x[:, 1::2])
        if self.shortcut:
            kept = self.shortcut(kept)
        return torch.cat([kept, self.main(worked)], 1)


def _tensors(x, y):
    """A batch of images, channels first, and of labels, on the device."""
    x, y = (torch.from_numpy(a).to(DEVICE) for a in (x, y))
    return x.permute(0, 3, 1, 2).contiguous(), y


def _convolution(given, out, kernel, stride=1, groups=1, relu=False):
    parts = [
        nn.Conv2d(given, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out, affine=False),
    ]
    return nn.Sequential(*parts, nn.ReLU()) if relu else nn.Sequential(*parts)
