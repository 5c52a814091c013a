"""Computing a decomposition: dense first, then every method at every kept share, each member measured."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from copal_core.checkpoints import devices, locate
from copal_core.checkpoints.backbone import Backbone
from copal_core.checkpoints.layout import GROUPS, PROJECTIONS, module_names, place_of
from copal_core.compression.factors import factorise_block
from copal_core.compression.pruning import prune_block
from copal_core.compression.restore import dense_weights
from copal_core.config import Structure
from copal_core.errors import Cancelled
from copal_core.experiment.evaluation import Weights, evaluate, no_change
from copal_core.methods import stored_size
from copal_core.methods.build import build_compressor
from copal_core.methods.decomposition import Decomposition, Factors, Masked
from copal_core.methods.factored.files import save_factors
from copal_core.methods.factored.workshop import Member, Workshop
from copal_core.methods.lowrank.hybrid import Hybrid
from copal_core.statistics.accumulators import BlockStatistics, GroupStatistics
from copal_core.statistics.library import ALL, GRAM, LayerLibrary, combined, layer_library
from copal_core.store.decompositions import DecompositionStore, parse_method
from copal_core.store.folder import RunState, ending
from copal_core.system import files

Event = dict[str, Any]
_Found = tuple[Member, Callable[[int, nn.Module], Weights], dict[str, Any]]


def compute(
    store: DecompositionStore,
    report: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Compute what is missing of `store`. Raises Cancelled when `should_stop` says so, CopalError for what the user
    can mend; the state is written in every case."""
    with store.lock():
        work = _Work(store, report, lambda: should_stop() or store.cancel_requested())
        with ending(work.finish, "the members that were finished are kept"):
            work.compute()


@dataclass
class _Work:
    store: DecompositionStore
    report: Callable[[Event], None]
    should_stop: Callable[[], bool]
    _share: float = 0.0
    _label: str = ""
    _written: float = 0.0
    _result: dict[str, Any] = field(default_factory=dict)

    def compute(self) -> None:
        config = self.store.config
        methods = [
            (text, build_compressor(m.name, m.options))
            for text in config.methods
            for m in [parse_method(text)]
        ]
        coupled = any("absolute_coupling" in {s.name for s in one.statistics()} for _, one in methods)
        checkpoint = locate(config.checkpoint, self._progress)
        gathered = ALL if coupled else GRAM
        library = layer_library(
            checkpoint, config.domains, config.protocol, gathered, self._progress, self.should_stop
        )
        device, _, _ = devices.choose(config.protocol.device, config.protocol.dtype)
        backbone = Backbone(checkpoint.folder, device, "float32" if _trains(methods) else library.dtype)
        chosen = [d.name for d in library.domains if not config.targets or d.spec in config.targets]
        workshop = Workshop(backbone, library, chosen, config.protocol.seed, self._progress, self.should_stop)
        self._begin(library, chosen)
        jobs = [(text, method, keep) for text, method in methods for keep in config.keep]
        for number, (text, method, keep) in enumerate(jobs):
            self._share = number / len(jobs)
            if [text, keep] not in self._result["done"]:
                self._one(workshop, text, method, keep)

    def finish(self, status: str, message: str) -> None:
        share = 1.0 if status == "done" else self._share
        self.store.set_state(RunState(status, message, share, self._label))
        self.report({"event": status, "message": message, "progress": share})

    def _begin(self, library: LayerLibrary, targets: list[str]) -> None:
        """Describe the work in the result, and measure the dense model."""
        store, config = self.store, self.store.config
        self._result = store.result()
        if "dense" in self._result:
            return
        shapes = [tuple(library.weight(0, name).shape) for name in PROJECTIONS]
        weights = library.blocks * sum(rows * columns for rows, columns in shapes)
        self._result |= {
            "decomposition": store.id,
            "checkpoint": {"name": config.checkpoint, "fingerprint": library.checkpoint.fingerprint()},
            "protocol": config.protocol.model_dump(mode="json"),
            "stamp": f"{library.stamp()} · evaluation {config.protocol.evaluation}".replace("x", "×"),
            "domains": [
                {"spec": d.spec, "name": d.name, "content_hash": d.content_hash} for d in library.domains
            ],
            "targets": targets,
            "projections": {"parameters": weights, "bytes": weights * stored_size.VALUE_BITS // 8},
            "done": [],
            "members": [],
        }
        device, dtype, _ = devices.choose(config.protocol.device, config.protocol.dtype)
        self._result["dense"] = self._measure(
            Backbone(library.checkpoint.folder, device, dtype), library, no_change
        )
        store.save_result(self._result)

    def _one(self, workshop: Workshop, text: str, method: Any, keep: float) -> None:
        """One method at one share: all its members."""
        began, result = time.perf_counter(), self._result
        result["members"] = [m for m in result["members"] if (m["method"], m["asked"]) != (text, keep)]
        if isinstance(method, Decomposition) and not isinstance(method, Hybrid):
            found: Iterator[_Found] = (
                (m, m.weights, _size(workshop.library, m)) for m in method.family(workshop, keep)
            )
        else:
            found = iter([_live(workshop, text, method, keep)])
        for member, weights_of, size in found:
            name = _slug(f"{text}-{member.share:.3f}")
            perplexity = self._measure(workshop.backbone, workshop.library, weights_of)
            entry = {
                "name": name,
                "method": text,
                "asked": keep,
                "share": round(member.share, 6),
                "label": member.label,
                "tokens": member.tokens,
                "perplexity": perplexity,
                "seconds": round(time.perf_counter() - began, 2),
                **size,
                **{key: value for key, value in member.details.items() if key != "bases"},
            }
            self._keep(name, member)
            result["members"].append(entry)
            self.store.save_result(result)
            self.report({"event": "member", "name": name, "perplexity": perplexity, "progress": self._share})
            began = time.perf_counter()
        result["done"].append([text, keep])
        self.store.save_result(result)

    def _keep(self, name: str, member: Member) -> None:
        folder = self.store.member_folder(name)
        if member.factors:
            save_factors(folder / "factors.safetensors", member.factors)
        if "bases" in member.details:
            files.write_json(folder / "bases.json", member.details["bases"])

    def _measure(
        self, backbone: Backbone, library: LayerLibrary, weights_of: Callable[[int, nn.Module], Weights]
    ) -> dict[str, float | None]:
        """Perplexity by domain; None where the model's numbers are not finite."""

        def visit(block: int) -> None:
            self._progress("evaluating", block + 1, backbone.depth)

        windows = [domain.evaluation for domain in library.domains]
        losses = evaluate(backbone, windows, weights_of, visit)
        values = [loss.perplexity for loss in losses]
        return {n: v if math.isfinite(v) else None for n, v in zip(library.names, values, strict=True)}

    def _progress(self, label: str, done: int = 0, total: int = 0) -> None:
        if self.should_stop():
            raise Cancelled("the decomposition was cancelled")
        self._label = f"{label} ({done / total:.0%})" if total else label
        if time.monotonic() - self._written > 0.3:
            self._written = time.monotonic()
            self.store.set_state(RunState("running", "", self._share, self._label))
            self.report({"event": "progress", "label": self._label, "progress": self._share})


def block_statistics(library: LayerLibrary, block: int, targets: list[str]) -> BlockStatistics:
    """The targets' statistics of one block, as a calibration pass would have gathered them."""
    found = BlockStatistics()
    for group, names in GROUPS.items():
        parts = [combined(library.statistics(block, name), targets) for name in names]
        totals = dict(parts[0].totals)
        if "absolute_coupling" in totals:
            totals["absolute_coupling"] = torch.cat([part.totals["absolute_coupling"] for part in parts])
        found.groups[group] = GroupStatistics(parts[0].tokens, totals)
    return found


def _live(workshop: Workshop, text: str, method: Any, keep: float) -> _Found:
    """Masks, and the hybrid: computed block by block while they are evaluated, and not kept."""
    library, targets = workshop.library, list(workshop.targets)
    structure = Structure(sparsity=min(stored_size.sparsity_at(keep), 0.999))
    size: dict[str, Any] = {"parameters": 0, "bytes": 0, "kinds": {}}

    def weights_of(index: int, block: nn.Module) -> dict[str, Tensor]:
        base, given = dense_weights(block), block_statistics(library, index, targets)
        stored: dict[str, Factors | Masked] = {}
        if isinstance(method, Hybrid):
            found = factorise_block(Hybrid(keep, method.mask), base, given, structure)
            weights, stored = found.weights, {name: one.result for name, one in found.choices.items()}
            for name, one in stored.items():
                kind = "rank" if isinstance(one, Factors) else "mask"
                size["kinds"].setdefault(kind, []).append([index, name])
        else:
            pruned = prune_block(method, base, given, structure)
            weights, stored = (
                pruned.weights,
                {name: Masked(kept, structure) for name, kept in pruned.kept.items()},
            )
        for name, weight in base.items():
            small = stored.get(name)
            size["parameters"] += weight.numel() if small is None else small.parameters
            size["bytes"] += stored_size.dense_bytes(*weight.shape) if small is None else small.bytes
        return {name: weight.to(base[name].dtype) for name, weight in weights.items()}

    member = Member(text, keep, {}, 0, "training-free")
    return member, weights_of, size


def _size(library: LayerLibrary, member: Member) -> dict[str, int]:
    """Parameters and stored bytes of all projections."""
    parameters = 0
    full = {name: library.weight(0, name).numel() for name in PROJECTIONS}
    for name in module_names(library.blocks):
        one, weights = member.factors.get(name), full[place_of(name)[1]]
        parameters += weights if one is None else min(weights, one.parameters)
    return {"parameters": parameters, "bytes": parameters * stored_size.VALUE_BITS // 8}


def _trains(methods: list[tuple[str, Any]]) -> bool:
    return any(getattr(method, "tokens", 0) for _, method in methods)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")
