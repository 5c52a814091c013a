"""The main loop: a checkpoint, domains one after another, every method at every step, evaluated each time."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from copal_core import domains as domain_sources
from copal_core.checkpoints import Description, devices, locate
from copal_core.checkpoints.backbone import Backbone
from copal_core.compression.repair import forget_damaged
from copal_core.compression.restore import variant
from copal_core.compression.step import HoldStates, Step
from copal_core.compression.training import train_factors
from copal_core.config import Method
from copal_core.domains.documents import name_apart
from copal_core.errors import Cancelled, InvalidValueError, RunError
from copal_core.experiment.evaluation import evaluate, no_change
from copal_core.experiment.progress import (
    TRAINING_COST,
    Meter,
    evaluation_cost,
    step_cost,
    steps,
    total_cost,
    training_cost,
)
from copal_core.methods.build import build_methods
from copal_core.methods.describe import trained_words
from copal_core.statistics.blockwise import HiddenStates
from copal_core.store.folder import RunState, record_outcome
from copal_core.store.records import PerplexityRecord, SecondsRecord
from copal_core.store.run_store import RunStore
from copal_core.system import files

Event = dict[str, Any]
Report = Callable[[Event], None]


def run(
    store: RunStore,
    report: Report = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
    states: HoldStates = HiddenStates,
) -> None:
    """Compute the run of `store`, from where it stands to its end.

    report: receives every progress event. should_stop: asked after every block. Raises Cancelled when it
    says yes, and CopalError for what the user can mend; the run's state is written in every case. states: who holds
    the hidden states while calibrating.
    """
    with store.lock():
        files.remove_partial(store.folder)
        experiment = _Experiment(store, report, should_stop, states)
        kept = "what was finished is kept, and resume goes on from there"
        with record_outcome(experiment.finish, kept):
            experiment.compute()


@dataclass
class _Experiment:
    store: RunStore
    report: Report
    should_stop: Callable[[], bool]
    states: HoldStates
    _state: RunState = field(default_factory=lambda: RunState(status="running"))
    _written: float = 0.0

    def compute(self) -> None:
        config = self.store.config
        # unknown methods, and files that are missing or far too short, are refused before anything is computed
        self._parts = build_methods(config)
        new = config.domains[len(self.store.info.get("domains", [])) :]
        domain_sources.resolve_specs(new, config.protocol.calibration, config.protocol.evaluation)
        self._meter = Meter(total_cost(config))
        self._progress(phase="opening the checkpoint", force=True)
        backbone = self._open()
        calibration, evaluation = self._windows()
        self._evaluate(backbone, evaluation, "dense", 0)
        for method, step in steps(config):
            self._train(self._prune(backbone, calibration, method, step))
            self._evaluate(backbone, evaluation, str(method), step)

    def finish(self, status: str, message: str) -> None:
        share = 1.0 if status == "done" else self._state.progress
        self._state = replace(self._state, status=status, message=message, progress=share, seconds_left=None)
        self.store.set_state(self._state)
        self._emit({"event": status, "message": message})

    # -- parts ---------------------------------------------------------------------------------------

    def _open(self) -> Backbone:
        protocol = self.store.config.protocol
        checkpoint = locate(
            self.store.config.checkpoint, lambda label, done, total: self._preparing(label, done, total)
        )
        device, dtype, reason = devices.choose(protocol.device, protocol.dtype)
        described = checkpoint.describe(device, dtype)
        self._check(checkpoint.fingerprint(), described)
        self._tokenizer = checkpoint.tokenizer()
        backbone = Backbone(checkpoint.folder, device, dtype)
        self.store.describe(
            checkpoint={
                "name": self.store.config.checkpoint,
                "fingerprint": checkpoint.fingerprint(),
                "device": device,
                "dtype": dtype,
                "dtype_reason": reason,
                "blocks": described.blocks,
                "parameters": described.total,
                "heads": described.heads,
                "kv_heads": described.kv_heads,
                "projections": {name: list(shape) for name, shape in described.projections.items()},
            },
            versions=_versions(),
            machine=f"{platform.machine()}, {torch.get_num_threads()} threads",
        )
        return backbone

    def _check(self, fingerprint: str, described: Description) -> None:
        """Refuse what would fail or mislead later: other weights than before, N:M groups that do not divide,
        windows beyond the positions that the model was trained on.
        """
        config, known = self.store.config, self.store.info.get("checkpoint", {})
        if known.get("fingerprint", fingerprint) != fingerprint:
            raise RunError(
                f"checkpoint '{config.checkpoint}' has changed since the run began; what was finished belongs to "
                "other weights; start a new run"
            )
        for _, columns in described.projections.values():
            config.structure.check_divides(columns)
        for name in ("calibration", "evaluation"):
            length = getattr(config.protocol, name).length
            if length > described.context:
                raise InvalidValueError(
                    f"{name} windows of {length} tokens exceed the checkpoint's context of {described.context}; "
                    f"use windows of at most {described.context} tokens"
                )

    def _windows(self) -> tuple[list[Tensor], list[Tensor]]:
        """Calibration and evaluation windows of every domain; sampled once, then kept with the run."""
        protocol, described = self.store.config.protocol, list(self.store.info.get("domains", []))
        calibration, evaluation = [], []
        for index, spec in enumerate(self.store.config.domains):
            kept = self.store.windows(index) if index < len(described) else None
            if kept is None:
                domain = domain_sources.find(spec)
                sample = domain_sources.draw(
                    domain,
                    self._tokenizer,
                    protocol.calibration,
                    protocol.evaluation,
                    protocol.seed,
                    self._preparing,
                )
                self.store.save_windows(index, sample.calibration, sample.evaluation)
                described = described[:index] + [_described(domain, sample, described[:index])]
                self.store.describe(domains=described)
                kept = {"calibration": sample.calibration, "evaluation": sample.evaluation}
            calibration.append(torch.from_numpy(kept["calibration"]))
            evaluation.append(torch.from_numpy(kept["evaluation"]))
        return calibration, evaluation

    def _prune(self, backbone: Backbone, windows: list[Tensor], method: Method, step: int) -> Step:
        """Compress block by block; returns the finished step."""
        cost = step_cost(self.store.config, method, step)[0] / backbone.depth
        compressor, strategy = self._parts[str(method)]
        if damaged := forget_damaged(self.store, method, step, compressor, strategy):
            block, problem = damaged
            self._emit(
                {"event": "repair", "method": str(method), "step": step, "block": block, "message": problem}
            )
        finished = self.store.finished_blocks(str(method), step)
        self._meter.skip(cost * finished)

        def visit(block: int) -> None:
            self._meter.add(cost)
            self._progress("prune", str(method), step, block)
            self._emit({"event": "block", "method": str(method), "step": step, "block": block})

        self._progress("prune", str(method), step, finished, force=True)
        found = Step(self.store, backbone, windows, method, compressor, strategy, step, visit, self.states)
        found.run()
        return found

    def _train(self, step: Step) -> None:
        """Train the factors of a finished step, of a method that does."""
        place = (str(step.method), step.step)
        if not step.trains:
            return
        if self.store.is_trained(*place):
            self._meter.skip(training_cost(step.method))
        else:

            def visit(label: str, tokens: int) -> None:
                self._meter.add(TRAINING_COST * tokens)
                self._progress(label, *place, block=step.backbone.depth - 1)

            trained = train_factors(step, visit)
            words = trained_words(trained.tokens, trained.distinct_tokens)
            self._emit({"event": "trained", "method": place[0], "step": place[1], "message": words})
        if not step.strategy.remembers:
            self.store.drop_arrays("memory", *place)  # kept until here for the training alone

    def _evaluate(self, backbone: Backbone, windows: list[Tensor], method: str, step: int) -> None:
        """Perplexity on the domains that are not known yet, of the dense model or of one step's result."""
        domains, known = self.store.domains, set(self.store.evaluated(method, step))
        missing = [index for index, name in enumerate(domains) if name not in known]
        cost = evaluation_cost(self.store.config) / len(domains)
        self._meter.skip(cost * len(known))
        if not missing:
            return
        started = time.perf_counter()
        weights_of = no_change if step == 0 else variant(self.store, method, step)

        def visit(block: int) -> None:
            self._meter.add(cost * len(missing) / backbone.depth)
            self._progress("evaluate", method, step, block)

        losses = evaluate(backbone, [windows[index] for index in missing], weights_of, visit)
        records: list[PerplexityRecord | SecondsRecord] = [
            PerplexityRecord(
                method,
                step,
                domains[index],
                loss.perplexity,
                loss.nats / loss.tokens,
                loss.tokens,
                loss.nonfinite_windows,
            )
            for index, loss in zip(missing, losses, strict=True)
        ]
        self.store.add([*records, SecondsRecord(method, step, -1, "evaluate", time.perf_counter() - started)])
        shown = {domains[index]: loss.perplexity for index, loss in zip(missing, losses, strict=True)}
        self._emit({"event": "evaluated", "method": method, "step": step, "perplexity": shown})

    # -- progress ------------------------------------------------------------------------------------

    def _preparing(self, label: str, done: int, total: int) -> None:
        self._progress(phase=f"{label} ({done / total:.0%})" if total else label)

    def _progress(
        self, phase: str, method: str = "", step: int = 0, block: int = 0, force: bool = False
    ) -> None:
        """Write where the run stands (at most five times a second), and stop when asked to."""
        if self.should_stop():
            raise Cancelled("the run was cancelled")
        meter = self._meter
        self._state = RunState("running", "", meter.share, phase, method, step, block, meter.seconds_left)
        if force or time.monotonic() - self._written > 0.2:
            self.store.set_state(self._state)
            self._written = time.monotonic()

    def _emit(self, event: Event) -> None:
        event = {**event, "progress": round(self._state.progress, 4)}
        self.store.append_event(event)
        self.report(event)


def _described(domain: Any, sample: Any, before: list[dict[str, Any]]) -> dict[str, Any]:
    """Describe a domain for run.json; its name is made unique within the run."""
    return {
        "spec": domain.spec,
        "name": name_apart(domain.name, {entry["name"] for entry in before}),
        "label": domain.label,
        "content_hash": sample.content_hash,
        "documents": sample.documents,
        "notes": list(sample.notes),
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    packages = ("torch", "transformers", "safetensors", "tokenizers", "numpy", "datasets")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
