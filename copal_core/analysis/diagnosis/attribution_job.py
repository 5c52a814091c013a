"""An attribution computed, pass after pass: results are written after each, so that nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from copal_core.analysis.diagnosis.attribution_folder import Attribution
from copal_core.analysis.diagnosis.kept import domain_windows
from copal_core.analysis.diagnosis.ranking import Tally, cost_left, next_pass
from copal_core.errors import Cancelled, RunError
from copal_core.store.folder import RunState, record_outcome
from copal_core.store.run_store import RunStore
from copal_core.system import files

_TOKENS_AT_ONCE = 1024  # of one pass: results are written, and seen, after each
_HIDDEN_BYTES = 512 * 2**20  # of all parts' hidden states together


def compute(
    attribution: Attribution,
    report: Callable[[RunState], None] = lambda state: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Measure from where it stands to the end of the plan, writing after every pass.

    report: told of every change of state. should_stop: asked after every block. Raises Cancelled when it says yes;
    what was measured is kept.
    """
    with attribution.lock():
        files.remove_partial(attribution.folder)
        progress = _Progress(attribution, report, should_stop)
        with record_outcome(progress.end, "what was measured is kept"):
            _compute(attribution, progress)


def _compute(attribution: Attribution, progress: _Progress) -> None:
    import torch

    from copal_core.analysis.diagnosis.attribution import measure, parts_of
    from copal_core.checkpoints import locate
    from copal_core.compression.restore import variant

    store, request = attribution.store, attribution.request
    progress.at("opening the checkpoint")
    protocol = store.config.protocol
    checkpoint = locate(store.config.checkpoint)
    _check_weights(store, checkpoint.fingerprint())
    windows = torch.from_numpy(domain_windows(store, request.domain - 1, checkpoint)["evaluation"])
    backbone = checkpoint.open(protocol.device, protocol.dtype)
    parts = {part.name: part for part in parts_of(request.kind, backbone.depth)}
    at_once = _windows_at_once(len(parts), windows.shape[1], backbone.config.hidden_size)
    final, earlier = (variant(store, request.method, step) for step in (request.final, request.step))
    tally = attribution.tally()
    while (planned := next_pass(tally, attribution.names, request.windows, at_once)) is not None:
        done, total = cost_left(tally, attribution.names, request.windows)
        share = (planned.stop - planned.first) * len(planned.parts) / total / backbone.depth

        def visit(block: int, base: float = done / total, share: float = share) -> None:
            progress.at(_phase(tally), base + share * (block + 1))

        chosen = [parts[name] for name in planned.parts]
        losses = measure(backbone, windows[planned.first : planned.stop], final, earlier, chosen, visit)
        tally.add(planned.first, losses)
        attribution.save(tally)


def _phase(tally: Tally) -> str:
    if not tally.final:
        return "first ranking, on one window"
    return f"refining the parts that return most; ranked on up to {len(tally.final)} windows so far"


def _windows_at_once(parts: int, length: int, hidden: int) -> int:
    """Bounded by tokens, and by what the hidden states of all parts take."""
    held = _HIDDEN_BYTES // (4 * hidden * length * (parts + 2))
    return max(1, min(_TOKENS_AT_ONCE // length, held))


def _check_weights(store: RunStore, fingerprint: str) -> None:
    known = store.info.get("checkpoint", {}).get("fingerprint", fingerprint)
    if known != fingerprint:
        raise RunError(
            f"checkpoint '{store.config.checkpoint}' has changed since run '{store.id}' was computed; run it again"
        )


@dataclass
class _Progress:
    attribution: Attribution
    report: Callable[[RunState], None]
    should_stop: Callable[[], bool]
    state: RunState = RunState(status="running")

    def at(self, phase: str, share: float = 0.0) -> None:
        if self.should_stop():
            raise Cancelled("the attribution was cancelled; what was measured is kept")
        self.state = RunState("running", progress=min(1.0, share), phase=phase)
        self._write()

    def end(self, status: str, message: str) -> None:
        share = 1.0 if status == "done" else self.state.progress
        self.state = replace(self.state, status=status, message=message, progress=share)
        self._write()

    def _write(self) -> None:
        self.attribution.set_state(self.state)
        self.report(self.state)
