"""The commands `decompose` and `compare`: runs of low rank at several sizes, with masks beside it at equal bytes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from copal_core.cli import runs
from copal_core.cli.options import (
    AddCommand,
    protocol_from,
    with_checkpoint,
    with_protocol,
    with_runs,
    with_title,
)
from copal_core.cli.output import cells, heads, print_json, tell_step
from copal_core.config import Method, RunConfig, Structure
from copal_core.errors import InvalidValueError
from copal_core.methods import stored_size
from copal_core.system.files import new_folder

_COMPARED = ("wanda", "copal", "magnitude", "whitened-svd", "svd", "hybrid")


def add_commands(command: AddCommand) -> None:
    """Add both commands to the parser."""
    decompose = command(
        "decompose", _decompose, "Decompose a checkpoint into factors and measure every size."
    )
    _add_options(decompose)
    decompose.add_argument(
        "--method", action="append", help="svd, whitened-svd, plrd[tokens=8192], basel, wanda, ..."
    )
    decompose.add_argument(
        "--target",
        action="append",
        default=[],
        help="the domain to calibrate and train on; default: all of them",
    )
    decompose.add_argument("--resume", metavar="RUN", help="go on with one that was stopped")
    decompose.add_argument(
        "--out", type=Path, metavar="DIR", help="export the last of low rank: factors and a merged checkpoint"
    )
    decompose.add_argument(
        "--speed",
        action="store_true",
        help="measure tokens a second of the last of low rank, dense beside it",
    )
    compare = command(
        "compare", _compare, "Masks and low rank at equal bytes: one layer, or the whole model."
    )
    _add_options(compare)
    compare.add_argument("--method", action="append", help=f"whole model; default: {', '.join(_COMPARED)}")
    compare.add_argument("--block", type=int, help="one layer, without a forward pass")
    compare.add_argument("--projection", default="q_proj", help="of that block")
    compare.add_argument(
        "--fit", action="append", default=[], help="a domain whose text the methods are given; default: all"
    )


def _add_options(made: argparse.ArgumentParser) -> None:
    with_checkpoint(with_runs(made))
    made.add_argument(
        "--domain", action="append", default=[], help="once for each; file#column, hub:owner/name"
    )
    made.add_argument(
        "--keep", action="append", type=float, help="share of the stored bytes kept, such as 0.8"
    )
    with_title(with_protocol(made, calibration="32x256", propagate=False))


def _decompose(options: argparse.Namespace) -> int:
    from copal_core.analysis.results import result_of
    from copal_core.store.runs import Runs

    out = new_folder(options.out) if options.out else None
    if options.resume:
        store = Runs(options.runs).open(options.resume)
        store.refuse_recorded()
        store.forget_old_cancel()
    else:
        store = runs.create(_config(options), options)
    runs.compute(store)
    config, result = store.config, result_of(store)
    if out is not None or options.speed:
        method, step = _last(config), len(config.domains)
        if options.speed:
            from copal_core.export.smaller import measure_smaller

            result["speed"] = {"method": method, **measure_smaller(store, method, step)}
        if out is not None:
            from copal_core.export.checkpoint import export_checkpoint

            result["exported"] = str(export_checkpoint(store, method, step, out))
    if options.json:
        print_json(result)
    else:
        print(f"{store.id}: {store.state().status}\n{store.protocol_stamp()}")
        _print_table(result, stored_size.structure_share(config.structure))
    return 0


def _config(options: argparse.Namespace) -> RunConfig:
    """Return the run of every method at every size, of the last step alone.

    All domains are seen together; with a target, it comes last and is seen alone. Raises InvalidValueError.
    """
    domains, strategy = _seen(options.domain, options.target)
    keeps, structure, methods = options.keep or [0.8], Structure(), []
    for keep in keeps:
        if not 0 < keep <= 1:
            raise InvalidValueError(
                f"keep = {keep} is not a share of the stored bytes; use 0 < keep <= 1, such as 0.8"
            )
        for text in options.method or ["whitened-svd"]:
            method = parse_method(text, strategy)
            if _is_low_rank(method):
                method = method.model_copy(update={"options": {"keep": keep, **method.options}})
            elif len(keeps) > 1:
                raise InvalidValueError(
                    f"method '{text}' makes masks, which have one size a run; give one --keep beside it"
                )
            else:
                structure = Structure(sparsity=round(min(0.999, stored_size.sparsity_at(keep)), 6))
            methods.append(method)
    if options.speed and not any(map(_is_low_rank, methods)):
        raise InvalidValueError("--speed measures factors; add a method of low rank, such as --method svd")
    return RunConfig(
        checkpoint=options.checkpoint,
        domains=domains,
        methods=tuple(methods),
        structure=structure,
        protocol=protocol_from(options, propagate="dense"),
        steps="last",
    )


def parse_method(text: str, strategy: str) -> Method:
    """Read 'plrd[tokens=0]' as a method with `strategy`. Raises InvalidValueError for anything else."""
    from copal_core.methods.neurons import NEURONS

    if ":" in text:
        raise InvalidValueError(
            f"method '{text}' names a strategy; a decomposition sees its targets at once: NAME[OPTIONS]"
        )
    method = Method.parse(f"{text.strip()}:{strategy}")
    if method.name in NEURONS.names():
        raise InvalidValueError(
            f"method '{text}' removes whole neurons; use the command neurons, or run with {method.name}:joint"
        )
    return method


def _seen(domains: list[str], targets: list[str]) -> tuple[tuple[str, ...], str]:
    """Return the domains in the order of a run, and the strategy whose last step sees only the targets."""
    if not domains:
        raise InvalidValueError("a decomposition needs a domain; such as --domain python-code")
    chosen = list(dict.fromkeys(targets))
    unknown = [target for target in chosen if target not in domains]
    if unknown:
        raise InvalidValueError(f"'{unknown[0]}' is not among the domains; list it as a domain too")
    if len(chosen) != 1:
        if chosen and len(chosen) < len(set(domains)):
            raise InvalidValueError(
                f"{len(chosen)} of {len(domains)} domains cannot be the targets; give one, or none for all of them"
            )
        return tuple(domains), "joint"
    return (*(one for one in domains if one != chosen[0]), chosen[0]), "restart"


def _is_low_rank(method: Method) -> bool:
    from copal_core.methods.lowrank import LOWRANK

    return method.name in LOWRANK.names()


def _last(config: RunConfig) -> str:
    """Return the last method that has factors, else the last one."""
    return str(([*filter(_is_low_rank, config.methods)] or config.methods)[-1])


def _compare(options: argparse.Namespace) -> int:
    if options.block is None:
        options.method = options.method or list(_COMPARED)
        options.target, options.resume, options.out, options.speed = options.fit, None, None, False
        return _decompose(options)
    from copal_core.analysis.layers.curves import layer_curves
    from copal_core.checkpoints import locate
    from copal_core.statistics.library import layer_library

    if not options.domain:
        raise InvalidValueError("compare needs a domain; such as --domain python-code")
    checkpoint = locate(options.checkpoint, tell_step)
    protocol = protocol_from(options, propagate="dense")
    library = layer_library(checkpoint, options.domain, protocol, report=tell_step)
    weight = library.weight(options.block, options.projection)
    curves = layer_curves(weight, library.statistics(options.block, options.projection), options.fit)
    shares = options.keep or [0.5625]
    readings = [r for share in shares for r in curves.readings(share)]
    if options.json:
        print_json(
            {
                "checkpoint": options.checkpoint,
                "block": options.block,
                "projection": options.projection,
                "shape": list(curves.shape),
                "stamp": library.stamp(),
                "fit": list(curves.fit),
                "rows_measured": curves.rows,
                "seconds": round(curves.seconds, 3),
                "readings": [reading.__dict__ for reading in readings],
                "curves": curves.table(),
            }
        )
        return 0
    print(
        f"block {options.block} {options.projection} {curves.shape[0]}×{curves.shape[1]} · {library.stamp()}"
    )
    for reading in readings:
        print(
            f"{reading.share:6.1%} of the bytes  {reading.method:16} {reading.domain:20} {reading.in_words()}"
        )
    return 0


def _print_table(result: dict[str, Any], masked_share: float) -> None:
    """Print perplexity by method and size. masked_share: bytes that the run's masks leave, over the dense ones."""
    names = list(result["dense"])
    print("perplexity, lower is better")
    width = 2 + max(len(method["method"]) for method in result["methods"])
    print(f"{'':{width}}{'bytes':>8}" + heads(names))
    print(f"{'dense':{width}}{'100.0%':>8}" + cells([result["dense"][name] for name in names]))
    for method in result["methods"]:
        row, share = cells(method["perplexity"][-1]), method.get("stored_share", masked_share)
        print(f"{method['method']:{width}}{share:>8.1%}{row}  {method.get('label', '')}")
    for name in ("dense", "smaller") if "speed" in result else ():
        speed = result["speed"][name]
        print(
            f"{name:10} {speed['parameters']:,} parameters, prefill {speed['prefill']:.1f} tokens/s, "
            f"decode {speed['decode']:.1f} tokens/s"
        )
