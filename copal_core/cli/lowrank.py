"""The commands `decompose` and `compare`: low rank for a whole checkpoint, and masks beside it at equal bytes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from copal_core.cli.options import AddCommand, protocol_from, with_checkpoint, with_protocol, with_runs
from copal_core.cli.output import cells, heads, perplexities, print_json, tell, tell_step
from copal_core.cli.signals import stop_on_signal
from copal_core.errors import InvalidValueError
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
        "--target", action="append", default=[], help="a domain to calibrate and train on; default: all"
    )
    decompose.add_argument("--resume", metavar="ID", help="go on with one that was stopped")
    decompose.add_argument(
        "--out", type=Path, metavar="DIR", help="export the last member: factors and a merged checkpoint"
    )
    decompose.add_argument(
        "--speed", action="store_true", help="measure tokens a second of the last member, dense beside it"
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
    with_checkpoint(with_runs(made, "results"))
    made.add_argument(
        "--domain", action="append", default=[], help="once for each; file#column, hub:owner/name"
    )
    made.add_argument(
        "--keep", action="append", type=float, help="share of the stored bytes kept, such as 0.8"
    )
    with_protocol(made, calibration="32x256", propagate=False)


def _decompose(options: argparse.Namespace) -> int:
    from copal_core.domains import find
    from copal_core.methods.build import build_compressor
    from copal_core.store.decompositions import DecompositionConfig, Decompositions, parse_method

    root = Decompositions(options.runs)
    if options.resume:
        return _compute(root.open(options.resume), options)
    methods = tuple(options.method or ("whitened-svd",))
    for text in methods:
        method = parse_method(text)
        build_compressor(method.name, method.options)
    files = {given: find(given).spec for given in options.domain}  # by their absolute paths
    targets = tuple(files.get(target, target) for target in options.target)
    asked = (tuple(files[given] for given in options.domain), methods, tuple(options.keep or (0.8,)), targets)
    if options.out:
        options.out = new_folder(options.out)
    protocol = protocol_from(options, propagate="dense")
    return _compute(root.create(DecompositionConfig(options.checkpoint, *asked, protocol)), options)


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


def _compute(store: Any, options: argparse.Namespace) -> int:
    tell(f"decomposition {store.id} in {store.folder.parent}")
    store.forget_old_cancel()
    with stop_on_signal() as stopped:
        from copal_core.experiment.decomposing import (
            compute,  # torch: seconds, in which a signal may come already
        )

        compute(store, _tell_event, stopped)
    result = _after(store, options, store.result())
    if options.json:
        print_json(result)
    else:
        _print_table(result)
    return 0


def _after(store: Any, options: argparse.Namespace, result: dict[str, Any]) -> dict[str, Any]:
    """Export and measure the last member that has factors, where asked."""
    if not (options.out or options.speed):
        return result
    from copal_core.analysis import speed
    from copal_core.checkpoints import locate
    from copal_core.checkpoints.backbone import Backbone
    from copal_core.export.factored import export_member, load_member

    entry, member = load_member(store)
    checkpoint = locate(store.config.checkpoint)
    if options.speed:
        backbone = Backbone(checkpoint.folder, "cpu", "float32")
        result["speed"] = {"member": entry["name"], **speed.compare(backbone.causal_lm(), member.factors)}
    if options.out:
        export_member(checkpoint, member, options.out, entry["perplexity"])
        result["exported"] = str(options.out)
    return result


def _print_table(result: dict[str, Any]) -> None:
    names = [domain["name"] for domain in result["domains"]]
    print(f"{result['decomposition']}: {result['status']}\n{result['stamp']}\nperplexity, lower is better")
    width = 2 + max((len(member["method"]) for member in result["members"]), default=3)
    print(f"{'':{width}}{'bytes':>8}" + heads(names))
    print(f"{'dense':{width}}{'100.0%':>8}" + cells([result["dense"][name] for name in names]))
    for member in result["members"]:
        row = cells([member["perplexity"][name] for name in names])
        print(f"{member['method']:{width}}{member['share']:>8.1%}{row}  {member['label']}")
    for name, speed in result.get("speed", {}).items():
        if isinstance(speed, dict):
            print(
                f"{name:10} {speed['parameters']:,} parameters, prefill {speed['prefill']:.1f} tokens/s, "
                f"decode {speed['decode']:.1f} tokens/s"
            )


def _tell_event(event: dict[str, Any]) -> None:
    if event["event"] == "member":
        tell(f"{event['progress']:4.0%}  {event['name']}  {perplexities(event['perplexity'])}")
    elif event["event"] == "progress":
        tell(f"{event['progress']:4.0%}  {event['label']}")
