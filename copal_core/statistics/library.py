"""Statistics of every layer on every domain, gathered once by a dense pass and stored in the cache folder.

Files: <cache>/statistics/<key>/<statistic>/block-NNN.safetensors, where the key identifies the checkpoint's weights,
the domain's windows and the dtype. One pass fills all blocks; an interrupted pass starts again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from copal_core import domains as domain_sources
from copal_core.checkpoints import Checkpoint, devices
from copal_core.checkpoints.architecture import read_shape
from copal_core.checkpoints.backbone import Backbone, linears
from copal_core.checkpoints.cache import slug
from copal_core.checkpoints.layout import GROUP_OF, GROUPS
from copal_core.checkpoints.weights import WeightFiles
from copal_core.config import Protocol
from copal_core.domains.documents import name_apart
from copal_core.errors import InvalidValueError
from copal_core.statistics import cache_room
from copal_core.statistics.accumulators import AbsoluteCoupling, GroupStatistics, InputGram, Statistic
from copal_core.statistics.blockwise import HiddenStates
from copal_core.system import files

Report = Callable[[str, int, int], None]  # label, done, total
ALL: tuple[Statistic, ...] = (InputGram(), AbsoluteCoupling())


@dataclass(frozen=True)
class Windows:
    """Token windows of one domain: calibration and evaluation, (count, length) int64 each."""

    name: str
    spec: str
    calibration: Tensor
    evaluation: Tensor
    content_hash: str


@dataclass(frozen=True)
class LayerLibrary:
    """Weights of every layer of a checkpoint and their statistics on each domain; read on access."""

    checkpoint: Checkpoint
    domains: tuple[Windows, ...]
    protocol: Protocol
    folders: Mapping[str, Path]  # domain name -> its folder in the cache
    dtype: str
    blocks: int

    @property
    def names(self) -> list[str]:
        return list(self.folders)

    def stamp(self) -> str:
        """Return the protocol of the statistics in one line."""
        protocol = self.protocol
        parts = [self.checkpoint.name, f"calibration {protocol.calibration}".replace("x", "×")]
        return " · ".join([*parts, "dense propagation", f"seed {protocol.seed}", self.dtype])

    def weight(self, block: int, projection: str) -> Tensor:
        """Return a layer's weight, (out, in) float32. Raises InvalidValueError if the layer does not exist."""
        if projection not in GROUP_OF:
            raise InvalidValueError(f"projection '{projection}' is not known; known: {', '.join(GROUP_OF)}")
        if not 0 <= block < self.blocks:
            raise InvalidValueError(f"block {block} is not in the checkpoint; choose 0 to {self.blocks - 1}")
        part = "self_attn" if "attention" in GROUP_OF[projection] else "mlp"
        prefix = f"model.layers.{block}.{part}.{projection}.weight"
        return WeightFiles(self.checkpoint.folder).read(prefix, "cpu", torch.float32)[""]

    def statistics(self, block: int, projection: str) -> dict[str, GroupStatistics]:
        """Return domain -> statistics of the layer, with the coupling's rows of this projection alone."""
        group = GROUP_OF[projection]
        by_domain = {}
        for name, folder in self.folders.items():
            gathered = GroupStatistics()
            for statistic in ALL:
                path = _file(folder, statistic, block)
                if not path.exists():
                    continue
                arrays, _ = files.read_arrays(path, [f"{group}.tokens", _key(group, projection, statistic)])
                gathered.tokens = int(arrays[f"{group}.tokens"])
                total = torch.from_numpy(arrays[_key(group, projection, statistic)])
                gathered.totals[statistic.name] = total
            gathered.totals["input_square_sum"] = gathered.require("input_gram").diagonal().clone()
            by_domain[name] = gathered
        return by_domain


def combined(statistics: Mapping[str, GroupStatistics], domains: Sequence[str]) -> GroupStatistics:
    """Add up the statistics of several domains. Raises InvalidValueError for an unknown domain."""
    for name in domains:
        if name not in statistics:
            raise InvalidValueError(f"domain '{name}' has no statistics here; known: {', '.join(statistics)}")
    first, *others = [statistics[name] for name in domains]
    for other in others:
        first = first.plus(other)
    return first


def sample_windows(
    checkpoint: Checkpoint, specs: Sequence[str], protocol: Protocol, report: Report
) -> list[Windows]:
    """Draw the windows of every domain under `protocol`; domains of the same name are numbered.

    Raises:
        DomainError: a domain cannot be read or is too short.
        CheckpointError: the tokenizer cannot be read.
    """
    tokenizer = checkpoint.tokenizer()
    drawn: list[Windows] = []
    for spec in specs:
        domain = domain_sources.find(spec)
        windows = (protocol.calibration, protocol.evaluation)
        sample = domain_sources.draw(domain, tokenizer, *windows, protocol.seed, report)
        first, second = (
            torch.from_numpy(np.ascontiguousarray(a)) for a in (sample.calibration, sample.evaluation)
        )
        name = name_apart(domain.name, {other.name for other in drawn})  # two files may have the same name
        drawn.append(Windows(name, domain.spec, first, second, sample.content_hash))
    return drawn


def layer_library(
    checkpoint: Checkpoint,
    specs: Sequence[str],
    protocol: Protocol,
    report: Report = lambda label, done, total: None,
) -> LayerLibrary:
    """Gather the statistics of every block on every domain, or find them in the cache.

    Args:
        checkpoint: the dense model.
        specs: domains, as `domains.find` takes them.
        protocol: calibration windows, seed, device and dtype.
        report: receives label, done and total at each block; what it raises (Cancelled) ends the pass.

    Raises:
        DomainError: a domain cannot be read or is too short.
        CheckpointError: the checkpoint cannot be read.
    """
    device, dtype, _ = devices.choose(protocol.device, protocol.dtype)
    domains = sample_windows(checkpoint, specs, protocol, report)
    depth = read_shape(checkpoint.folder).blocks
    folders = {domain.name: _folder(checkpoint, domain, dtype) for domain in domains}
    for folder in folders.values():
        cache_room.touch(folder)
    missing = [
        (domain, wanted)
        for domain in domains
        if (wanted := [s for s in ALL if not _complete(folders[domain.name], s)])
    ]
    if missing:
        backbone = Backbone(checkpoint.folder, device, dtype)
        for number, (domain, wanted) in enumerate(missing):
            done = (number * depth, len(missing) * depth)
            _gather(backbone, domain, wanted, folders[domain.name], done, report)
        cache_room.make_room(list(folders.values()))
    return LayerLibrary(checkpoint, tuple(domains), protocol, folders, dtype, depth)


def _gather(
    backbone: Backbone,
    domain: Windows,
    statistics: Sequence[Statistic],
    folder: Path,
    done: tuple[int, int],
    report: Report,
) -> None:
    states = HiddenStates(backbone, [domain.calibration])
    for index in range(backbone.depth):
        report(f"calibrating on {domain.name}", done[0] + index, done[1])
        with backbone.block(index) as block:
            block_statistics = states.calibrate(block, statistics, advance=True)[0]
        for statistic in statistics:
            arrays = {}
            for group, names in GROUPS.items():
                gathered = block_statistics.groups[group]
                arrays[f"{group}.tokens"] = np.array(gathered.tokens)
                total = gathered.require(statistic.name)
                if not statistic.per_output:
                    arrays[f"{group}.{statistic.name}"] = total.cpu().contiguous().numpy()
                    continue
                rows = [linears(block)[name].weight.shape[0] for name in names]
                for name, part in zip(names, total.split(rows), strict=True):
                    arrays[f"{name}.{statistic.name}"] = part.cpu().contiguous().numpy()
            # a lost file can be gathered again: no need to wait for the disk
            write = partial(save_file, arrays)
            files.write_atomically(_file(folder, statistic, index), write, durable=False)
    for statistic in statistics:
        files.write_json(folder / statistic.name / "complete.json", {"blocks": backbone.depth}, durable=False)


def _key(group: str, projection: str, statistic: Statistic) -> str:
    return f"{projection if statistic.per_output else group}.{statistic.name}"


def _file(folder: Path, statistic: Statistic, block: int) -> Path:
    return folder / statistic.name / f"block-{block:03d}.safetensors"


def _complete(folder: Path, statistic: Statistic) -> bool:
    return (folder / statistic.name / "complete.json").is_file()


def _folder(checkpoint: Checkpoint, domain: Windows, dtype: str) -> Path:
    shape = list(domain.calibration.shape)
    identity = json.dumps([checkpoint.fingerprint(), domain.content_hash, shape, dtype])
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return cache_room.statistics_root() / f"{slug(domain.name)[:40]}-{key}"
