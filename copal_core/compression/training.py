"""The training of one step: the factors that the pass left, trained as one model and stored in their place.

The pass gives every layer factors by itself, block after block. A method that trains then takes the whole model and
the text that its strategy may see at this step. It starts from the weights and the statistics that the pass started
from, and never from stored factors: a process that is killed, even while it writes, leaves nothing that the next one
reads, and the same bytes come out. The record of the training, written last, says that it is finished.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from copal_core.checkpoints import devices
from copal_core.checkpoints.backbone import Backbone
from copal_core.checkpoints.layout import GROUPS, module_name
from copal_core.compression.artifact import arrays_of
from copal_core.compression.factors import FactorisedBlock
from copal_core.compression.step import Step
from copal_core.methods.decomposition import Choice, Decomposition
from copal_core.methods.factored.training import Report
from copal_core.methods.factored.workshop import Trained, Workshop
from copal_core.statistics.accumulators import BlockStatistics, GroupStatistics
from copal_core.store.records import LossRecord, Record, SecondsRecord, TrainingRecord, WarningRecord
from copal_core.system.torch_settings import exact_products, one_thread


def train_factors(step: Step, report: Report) -> TrainingRecord:
    """Train the factors of a step whose blocks are all finished, and store them in place of the untrained ones.

    Args:
        step: of a method that trains; its statistics are in the store.
        report: hears what is done and the tokens of each training step; what it raises (Cancelled) ends the training.

    Returns:
        What was recorded of it.

    Raises:
        RunError: when the store lacks the statistics, or cannot be written.
    """
    if not isinstance(step.compressor, Decomposition):
        raise TypeError(f"{step.compressor} is no decomposition")
    started = time.perf_counter()
    protocol = step.store.config.protocol
    # a model of its own: small updates are lost in 16 bits, and the run's own blocks may come and go
    device, dtype, _ = devices.choose(protocol.device, "float32")
    backbone = Backbone(step.backbone.folder, device, dtype, keep_blocks=True)
    work = Workshop(
        model=backbone.causal_lm(),
        layers=lambda label: _layers(step, backbone, report, label),
        windows=torch.cat([step.windows[domain - 1] for domain in step.strategy.domains(step.step)]),
        seed=protocol.seed,
        report=report,
    )
    keep = min(1.0, step.compressor.share(step.store.config.structure))
    with exact_products():
        trained = step.compressor.train(work, keep)
    return _store(step, backbone, trained, started)


def _layers(
    step: Step, backbone: Backbone, report: Report, label: str
) -> Iterator[tuple[str, Tensor, GroupStatistics]]:
    """Module name, weight (out, in) float32 and statistics of every layer that the pass gave factors."""
    for index in range(backbone.depth):
        report(label, 0)
        factored = step.store.arrays("factors", str(step.method), step.step, index)
        with backbone.block(index) as block:
            base = step.base(index, block)
        given = _statistics(step, index, backbone.device)
        for group, names in GROUPS.items():
            for name in names:
                if f"{name}.left" in factored:
                    weight = base[name].float()
                    yield module_name(index, name), weight, given.groups.get(group, GroupStatistics())


def _statistics(step: Step, index: int, device: torch.device) -> BlockStatistics:
    """The statistics that the strategy gave for one block; none for a method that needs none."""
    if not step.compressor.statistics():
        return BlockStatistics()
    arrays = step.store.arrays("memory", str(step.method), step.step, index)
    return BlockStatistics.from_tensors({n: torch.from_numpy(a).to(device) for n, a in arrays.items()})


def _store(step: Step, backbone: Backbone, trained: Trained, started: float) -> TrainingRecord:
    """Write the trained factors of every block; then, in one transaction, what was recorded of them."""
    records: list[Record] = []
    with one_thread():
        for index in range(backbone.depth):
            records += _store_block(step, backbone, trained, index)
    method, outcome = str(step.method), trained.outcome
    finished = TrainingRecord(method, step.step, outcome.tokens, outcome.distinct, outcome.stopped)
    records += [LossRecord(method, step.step, n, nats) for n, nats in enumerate(outcome.losses, start=1)]
    if outcome.stopped:
        records.append(WarningRecord(method, step.step, -1, "", "training-stopped", outcome.stopped))
    records.append(SecondsRecord(method, step.step, -1, "train", time.perf_counter() - started))
    step.store.add([*records, finished])
    return finished


def _store_block(step: Step, backbone: Backbone, trained: Trained, index: int) -> list[Record]:
    place, found = (str(step.method), step.step, index), FactorisedBlock()
    with backbone.block(index) as block:
        base = step.base(index, block)
    given, records, arrays = _statistics(step, index, backbone.device), [], {}
    for group, names in GROUPS.items():
        totals = given.groups.get(group, GroupStatistics())
        gram = totals.mean("input_gram") if "input_gram" in totals.totals else None
        for name in names:
            module = module_name(index, name)
            if module in trained.factors:
                found.take(name, base[name], Choice(trained.factors[module]))
                records += found.records(place, name, base[name], gram)
            for kind, tensor in trained.arrays.get(module, {}).items():
                arrays[f"{name}.{kind}"] = tensor
    found.save(step.store, place)
    if arrays:
        step.store.save_arrays("bases", *place, arrays_of(arrays))
    return records
