"""The public interface for notebooks and scripts: `import copal_core as copal`; docs/in-python.md shows it at work.

Everything here puts together what the packages below compute, measure and draw. Runs lie in the same folders as those
of the app and the command line, so that each can open what another has computed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from copal_core.checkpoints.sources import DEFAULT
from copal_core.config import Protocol, RunConfig, Structure, Windows
from copal_core.domains.in_memory import Texts, write_texts
from copal_core.errors import CopalError as CopalError
from copal_core.errors import InvalidValueError, RunError
from copal_core.store.records import TABLES
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs, RunSummary

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import torch

Progress = bool | Callable[[dict[str, Any]], None]


# -- computing -----------------------------------------------------------------------------------------


def prune(
    model: Any,
    tokenizer: Any = None,
    domains: Texts | Sequence[Texts] = (),
    method: str = "copal:accumulate",
    sparsity: float | None = None,
    structure: str = "unstructured",
    *,
    group: Literal["row", "layer"] | None = None,
    calibration: str | Windows = "16x256",
    evaluation: str | Windows = "12x256",
    seed: int = 0,
    runs: str | Path | None = None,
    title: str = "",
    progress: Progress = True,
    **protocol: Any,
) -> Pruned:
    """Prune a model for domains one after another, and measure it on every domain after each of them.

    Args:
        model: a LLaMA model of transformers that you hold in memory, which is not changed; or a checkpoint's name,
            folder, GGUF file or hub id. A model in memory is computed with on its device and in its number format.
        tokenizer: of a model in memory; a checkpoint brings its own.
        domains: in the order in which they are added. Each is the name of a built-in domain, a file, `hub:owner/name`,
            a list of documents, or {name: documents}.
        method: CRITERION:STRATEGY, see `list_methods`; options in brackets, as in copal[epsilon=0.1]:accumulate.
        sparsity: share of the weights removed, 0.5 by default; N:M has it in its name.
        structure: "unstructured", or "N:M" to keep N of each M inputs.
        group: scores are compared within each "row" (default) or the whole "layer".
        calibration: COUNTxLENGTH windows of each domain that importance is estimated from.
        evaluation: COUNTxLENGTH other windows that perplexity is measured on.
        seed: decides which windows are drawn.
        runs: folder of the run; the app's own by default.
        title: of the run, for the list of runs.
        progress: True for a bar, False for silence, or a function that receives every event of the run.
        **protocol: the other settings: propagate, device, dtype, map_size.

    Returns:
        The pruned model, its masks, and the run with everything that was measured.

    Raises:
        CopalError: a value is not valid, the model is no LLaMA, or a domain holds too little text.
        Cancelled: the computation was interrupted; `open_run(id).resume()` goes on with it.

    >>> import copal_core as copal
    >>> pruned = copal.prune("tiny", domains=["python-code"], calibration="2x32", evaluation="2x32", progress=False)
    >>> name = "model.layers.0.mlp.down_proj"
    >>> weight = pruned.model.get_submodule(name).weight
    >>> bool((weight[~pruned.masks[name]] == 0).all())
    True
    >>> list(pruned.run.perplexity["method"])
    ['copal:accumulate', 'dense']
    """
    return run(
        checkpoint=model,
        tokenizer=tokenizer,
        domains=domains,
        methods=[method],
        sparsity=sparsity,
        structure=structure,
        group=group,
        calibration=calibration,
        evaluation=evaluation,
        seed=seed,
        runs=runs,
        title=title,
        progress=progress,
        **protocol,
    ).pruned()


def run(
    config: RunConfig | None = None,
    *,
    runs: str | Path | None = None,
    title: str = "",
    progress: Progress = True,
    **settings: Any,
) -> Run:
    """Compute a run in this process: every method at every step, each measured on every domain.

    Args:
        config: what to compute; or give its parts by name:
        runs: folder of the run; the app's own by default.
        title: of the run, for the list of runs.
        progress: True for a bar, False for silence, or a function that receives every event of the run.
        **settings: `checkpoint`, `domains` and `methods`, and if you like `tokenizer`, `sparsity`, `structure`,
            `group`, `calibration`, `evaluation`, `seed`, `propagate`, `device`, `dtype`, `map_size`, as in `prune`.

    Raises:
        CopalError: see `prune`.

    >>> import copal_core as copal
    >>> found = copal.run(
    ...     checkpoint="tiny", domains=["python-code"], methods=["wanda:restart", "magnitude:restart"],
    ...     sparsity=0.25, calibration="2x32", evaluation="2x32", progress=False,
    ... )
    >>> [entry["sparsity"] for entry in found.result()["methods"]]
    [0.25, 0.25]
    """
    from copal_core.cli.options import check_names

    if config is not None and settings:
        raise InvalidValueError(
            f"'{next(iter(settings))}' is given beside a configuration; put it into the configuration"
        )
    checked = check_names(config or _config(**settings))
    return Run(Runs(Path(runs) if runs else None).create(checked, title)).resume(progress)


def perplexity(
    model: Any,
    tokenizer: Any,
    text: Texts,
    *,
    calibration: str | Windows = "16x256",
    evaluation: str | Windows = "12x256",
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
) -> float:
    """Return the perplexity of a model on a text: exp of the mean loss of its predicted tokens, in nats.

    It is measured on the windows that a run of the same calibration, evaluation and seed draws from the same text,
    so that the two numbers compare. Both kinds of windows are drawn, as they must not overlap.

    Args:
        model: a causal language model of transformers, or a checkpoint's name, folder, GGUF file or hub id.
        tokenizer: of a model in memory; None for a checkpoint, which brings its own.
        text: a text, a list of documents, or a domain as in `prune`.
        calibration: COUNTxLENGTH windows to leave to calibration.
        evaluation: COUNTxLENGTH windows to measure on.
        seed: decides which windows.
        device: of a checkpoint: auto, cpu, cuda or cuda:N.
        dtype: of a checkpoint: auto, float32, bfloat16 or float16.

    Raises:
        CopalError: the text is too short, or the checkpoint cannot be read.

    >>> import copal_core as copal
    >>> value = copal.perplexity("tiny", None, "shakespeare", calibration="2x32", evaluation="4x32")
    >>> 1 < value < 10_000
    True
    """
    import torch

    from copal_core.checkpoints import locate
    from copal_core.domains import draw, find
    from copal_core.experiment.evaluation import evaluate, model_perplexity

    specs = write_texts([text])
    if len(specs) != 1:
        raise InvalidValueError(f"{len(specs)} domains are given; measure one at a time")
    settings: dict[str, Any] = {
        "calibration": calibration,
        "evaluation": evaluation,
        "device": device,
        "dtype": dtype,
    }
    protocol = Protocol(**settings, seed=seed)
    in_memory = _is_in_memory(model, tokenizer)
    checkpoint = None if in_memory else locate(os.fspath(model))
    reader = tokenizer if checkpoint is None else checkpoint.tokenizer()
    sample = draw(find(specs[0]), reader, protocol.calibration, protocol.evaluation, protocol.seed)
    windows = torch.from_numpy(sample.evaluation)  # (count, length)
    if checkpoint is not None:
        return evaluate(checkpoint.open(device, dtype), [windows])[0].perplexity
    with _in_evaluation_mode(model):
        return model_perplexity(model, windows)


# -- looking -------------------------------------------------------------------------------------------


def open_run(run_id: str, runs: str | Path | None = None) -> Run:
    """Open a run of this machine, whether a notebook, the app or the command line computed it.

    Args:
        run_id: as `list_runs` gives it.
        runs: folder of the runs; the app's own by default.

    Raises:
        CopalError: there is no such run, or its folder is damaged.

    >>> import copal_core as copal
    >>> copal.open_run("recorded-smollm2-135m").status
    'done'
    """
    store = Runs(Path(runs) if runs else None).open(run_id)
    _ = store.config, store.info  # a damaged folder is refused here
    return Run(store)


def list_runs(runs: str | Path | None = None) -> pd.DataFrame:
    """List the runs, newest first: id, title, created, status, checkpoint, domains, methods, recorded, note, group.

    >>> import copal_core as copal
    >>> "recorded-smollm2-135m" in list(copal.list_runs()["id"])
    True
    """
    import pandas as pd

    rows = [asdict(summary) for summary in Runs(Path(runs) if runs else None).list()]
    return pd.DataFrame(rows, columns=[field.name for field in fields(RunSummary)])


def list_checkpoints() -> pd.DataFrame:
    """List the checkpoints that work without a download: name, label, note, available, why_not.

    >>> import copal_core as copal
    >>> list(copal.list_checkpoints()["name"])
    ['smollm2-135m', 'tiny']
    """
    import pandas as pd

    from copal_core.checkpoints import catalogue

    return pd.DataFrame([asdict(known) for known in catalogue()])


def list_domains() -> pd.DataFrame:
    """List the built-in domains and the papers' own data sets: name, label, description, available, why_not.

    >>> import copal_core as copal
    >>> {"python-code", "hub:wikitext-2"} <= set(copal.list_domains()["name"])
    True
    """
    import pandas as pd

    from copal_core.domains import DomainInfo, builtins, hub_presets

    hub = [DomainInfo(name, label, "streamed from the hub", True) for name, label in hub_presets().items()]
    return pd.DataFrame([asdict(info) for info in [*builtins(), *hub]])


def list_methods() -> pd.DataFrame:
    """List what a method is put together from: kind (criterion, strategy, ...), name, summary.

    >>> import copal_core as copal
    >>> methods = copal.list_methods()
    >>> list(methods[methods["kind"] == "strategy"]["name"])
    ['accumulate', 'joint', 'restart', 'sequential']
    """
    import pandas as pd

    from copal_core.methods.criteria import CRITERIA
    from copal_core.methods.lowrank import LOWRANK
    from copal_core.methods.neurons import NEURONS
    from copal_core.methods.strategies import STRATEGIES

    rows = [
        (registry.kind, name, summary)
        for registry in (CRITERIA, LOWRANK, NEURONS, STRATEGIES)
        for name, summary in registry.summaries().items()
    ]
    return pd.DataFrame(rows, columns=["kind", "name", "summary"])


# -- a run ---------------------------------------------------------------------------------------------


class Run:
    """A run: its configuration, what was measured as pandas tables, and plotly figures of it.

    Every table and figure tells of what is finished, also while the run is being computed elsewhere.

    >>> import copal_core as copal
    >>> run = copal.open_run("recorded-smollm2-135m")
    >>> run.domains
    ['python-code', 'python-manual', 'shakespeare']
    >>> list(run.stasis.columns)
    ['method', 'step', 'stasis', 'expected', 'mask_change']
    >>> figure = run.figure("stasis")
    >>> len(figure.data) > 0
    True
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store

    def __repr__(self) -> str:
        return f"<Run {self.id}: {self.status}; {self.protocol}>"

    @property
    def id(self) -> str:
        """The run's name, for `open_run`, the app and the command line."""
        return self._store.id

    @property
    def folder(self) -> Path:
        """Folder that holds everything of the run."""
        return self._store.folder

    @property
    def status(self) -> str:
        """One of created, running, done, failed, cancelled and interrupted."""
        return self._store.state().status

    @property
    def config(self) -> RunConfig:
        """The configuration that decides the run's numbers."""
        return self._store.config

    @property
    def protocol(self) -> str:
        """The line that belongs beside every perplexity of the run."""
        return self._store.protocol_stamp()

    @property
    def domains(self) -> list[str]:
        """Names of the domains, in the order of the steps."""
        return self._store.domains

    @property
    def methods(self) -> list[str]:
        """The methods, as in the tables' column `method`."""
        return [str(method) for method in self.config.methods]

    @property
    def perplexity(self) -> pd.DataFrame:
        """Perplexity by method, step and domain; method "dense" at step 0 is the model before pruning."""
        return self.table("perplexity")

    @property
    def layers(self) -> pd.DataFrame:
        """Weights, removed weights, scores and thresholds by method, step, block and projection."""
        return self.table("layers")

    @property
    def overlaps(self) -> pd.DataFrame:
        """Weights that two methods both removed, or either of them, by step, block and projection."""
        return self.table("overlaps")

    @property
    def summary(self) -> pd.DataFrame:
        """Average perplexity, backward and forward transfer and largest forgetting of each finished method."""
        return self.table("summary")

    @property
    def stasis(self) -> pd.DataFrame:
        """Share of the removed weights that were removed one step before, by method and step."""
        return self.table("stasis")

    def table(self, name: str) -> pd.DataFrame:
        """Return a table: summary, stasis, or what was recorded (perplexity, layers, factors, seconds, warnings, ...).

        Raises InvalidValueError that lists the names.
        """
        from copal_core.figures import forgetting, stasis

        computed: dict[str, Callable[[], pd.DataFrame]] = {
            "summary": lambda: forgetting.summary_table(self.perplexity, self.methods, self.domains),
            "stasis": lambda: stasis.step_table(self.layers, self.methods),
        }
        if name not in TABLES and name not in computed:
            raise InvalidValueError(f"table '{name}' is not known; known: {', '.join([*computed, *TABLES])}")
        return computed[name]() if name in computed else self._store.records.table(name)

    def result(self) -> dict[str, Any]:
        """Return the outcome as plain values, the same object that `copal show RUN --json` prints."""
        from copal_core.analysis.results import result_of

        return result_of(self._store)

    def figure(self, name: str, **choices: Any) -> go.Figure:
        """Draw one of the app's figures; leave a choice out for the last step, the first domain or the only method.

        Args:
            name: "average" and "transfer" (a bar a method), "perplexity" (of one `domain` over the steps), "matrix"
                (of one `method`), "stasis" (a line a method), "moves" of weights between steps (of one `method`),
                "overlap" of masks (after `step`), or "sensitivity" (the mean score of each layer, of one `method`
                after `step`).
            **choices: method, domain or step, where the figure has one.

        Raises:
            InvalidValueError: the name or a choice is not known; the message lists those that are.
            RunError: the run has recorded nothing that the figure shows.
        """
        from copal_core.figures.by_name import draw

        return draw(self._store, name, **choices)

    def pruned(self, method: str | None = None, step: int | None = None) -> Pruned:
        """Give the model and the masks that a method (the only one) left after a step (the last)."""
        return Pruned(self, self._store.choose_method(method), self._store.choose_step(step))

    def export(
        self, out: str | Path, method: str | None = None, step: int | None = None, form: str = "hf"
    ) -> dict[str, Any]:
        """Write the pruned model into the new folder `out`, read it back through transformers and measure it again.

        Args:
            out: the folder; it must be new or empty.
            method: the only one by default.
            step: the last by default.
            form: "hf" or "compressed-tensors".

        Returns:
            folder, format, and domains: name -> the perplexity of the run and of what was read back.

        Raises:
            CopalError: the folder is not empty, the run is not finished, or the two perplexities differ.
        """
        from copal_core.export.checkpoints import export_and_check

        chosen, after = self._store.choose_method(method), self._store.choose_step(step)
        return export_and_check(self._store, chosen, after, Path(out), form)

    def report(self, out: str | Path) -> Path:
        """Write the run as one HTML file that needs no network. Raises RunError before anything was measured."""
        from copal_core.export.report import write_report

        return write_report(self._store, Path(out))

    def resume(self, progress: Progress = True) -> Run:
        """Compute what is not finished yet, in this process; return the run itself.

        Raises Cancelled when the kernel is interrupted or the app cancels the run (within one block; what was finished
        is kept), and other errors as `prune` does.
        """
        from copal_core.cli.signals import stop_on_signal

        self._store.refuse_recorded()
        self._store.forget_old_cancel()
        main = threading.current_thread() is threading.main_thread()  # no other may catch signals
        with stop_on_signal() if main else nullcontext(lambda: False) as stopped:
            from copal_core.experiment import loop

            with _reporting(progress) as report:
                loop.run(self._store, report, lambda: stopped() or self._store.cancel_requested())
        return self


class Pruned:
    """The model and the masks that one method left after one step of a run.

    >>> import copal_core as copal
    >>> pruned = copal.prune(
    ...     "tiny", domains=["licences"], method="magnitude:restart", structure="2:4",
    ...     calibration="2x32", evaluation="2x32", progress=False,
    ... )
    >>> float(pruned.masks["model.layers.0.self_attn.q_proj"].float().mean())
    0.5
    """

    def __init__(self, run: Run, method: str, step: int) -> None:
        self.run = run
        self.method = method
        self.step = step

    def __repr__(self) -> str:
        return f"<Pruned by {self.method}, after step {self.step} of run {self.run.id}>"

    @cached_property
    def model(self) -> Any:
        """A model of transformers with the pruned weights, as the run evaluated it; made when first asked for.

        It lies on the device that the run computed on, in the run's number format. Raises RunError when the run
        kept nothing to make it from.
        """
        from copal_core.export.checkpoint import pruned_model

        model = pruned_model(self.run._store, self.method, self.step)
        device = self.run._store.info["checkpoint"]["device"]
        return model if device in ("cpu", "cuda:all") else model.to(device)

    @cached_property
    def masks(self) -> dict[str, torch.Tensor]:
        """Module name -> (out, in) bool, True where the weight was kept.

        Raises RunError for a method that makes none (low rank, neurons), and for a recorded run.
        """
        import torch

        from copal_core.checkpoints.layout import module_name
        from copal_core.export.packed_masks import why_no_masks

        store = self.run._store
        if why := why_no_masks(store, self.method, self.step):
            raise RunError(why)
        return {
            module_name(block, projection): torch.from_numpy(kept)
            for block in range(store.info["checkpoint"]["blocks"])
            if store.has_arrays("masks", self.method, self.step, block)  # a hybrid has some blocks without
            for projection, kept in store.masks(self.method, self.step, block).items()
        }


# -- what callers hold in memory -----------------------------------------------------------------------


def _config(
    *,
    checkpoint: Any = DEFAULT,
    domains: Texts | Sequence[Texts] = (),
    methods: str | Sequence[str] = (),
    tokenizer: Any = None,
    sparsity: float | None = None,
    structure: str = "unstructured",
    group: Literal["row", "layer"] | None = None,
    **protocol: Any,
) -> RunConfig:
    """Build the configuration; models and texts in memory become files for as long as this process lives."""
    from copal_core.checkpoints.in_memory import save_model

    shape, in_memory = Structure.parse(structure, sparsity, group), _is_in_memory(checkpoint, tokenizer)
    if in_memory:
        dtype = str(checkpoint.dtype).removeprefix("torch.")
        known = dtype if dtype in ("float32", "bfloat16", "float16") else "auto"
        device = str(checkpoint.device) if checkpoint.device.type in ("cpu", "cuda") else "auto"
        protocol = {"device": device, "dtype": known, **protocol}
    settings: dict[str, Any] = {"domains": write_texts(domains), "methods": methods, "structure": shape}
    name = save_model(checkpoint, tokenizer) if in_memory else os.fspath(checkpoint)
    return RunConfig(checkpoint=name, protocol=Protocol(**protocol), **settings)


def _is_in_memory(model: Any, tokenizer: Any) -> bool:
    """Tell a model from the name of one. Raises InvalidValueError where the tokenizer does not go with it."""
    if isinstance(model, str | os.PathLike):
        if tokenizer is not None:
            raise InvalidValueError(f"checkpoint '{model}' brings its own tokenizer; leave the tokenizer out")
        return False
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise InvalidValueError(
            f"model is a {type(model).__name__}; give a LlamaForCausalLM of transformers or a checkpoint's name"
        )
    if tokenizer is None:
        raise InvalidValueError(f"a {type(model).__name__} in memory has no tokenizer; give it, too")
    return True


@contextmanager
def _in_evaluation_mode(model: Any) -> Iterator[None]:
    """Switch dropout off; afterwards every module of the model is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _reporting(progress: Progress) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give the function that receives a run's events: the caller's own, or one that moves a bar."""
    if callable(progress):
        yield progress
        return
    from tqdm.auto import tqdm

    layout = "{desc} {percentage:3.0f}% |{bar}| {elapsed}<{remaining}"
    with tqdm(total=100, disable=not progress, bar_format=layout) as bar:

        def move(event: dict[str, Any]) -> None:
            if "method" in event:
                bar.set_description_str(f"step {event['step']}, {event['method']}", refresh=False)
            bar.update(100 * event["progress"] - bar.n)

        yield move
