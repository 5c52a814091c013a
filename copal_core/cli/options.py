"""Options that several commands share, each defined once, and the configuration that they make."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from copal_core.config import Protocol, RunConfig, Windows

if TYPE_CHECKING:
    from copal_core.experiment.cluster import Cluster

# command(name, function, summary) adds a command with --json and returns its parser; json=False leaves --json out
AddCommand = Callable[..., argparse.ArgumentParser]
Parser = argparse.ArgumentParser
DEFAULT_CHECKPOINT = "smollm2-135m"
_SETTINGS = ("propagate", "seed", "dtype", "device", "map_size")  # of a protocol, beside its windows


# -- definitions: each adds to a parser and returns it -------------------------------------------------


def with_runs(parser: Parser, holds: str = "runs") -> Parser:
    """Add --runs, the folder that the command reads and writes."""
    parser.add_argument("--runs", type=Path, default=None, metavar="DIR", help=f"where {holds} are kept")
    return parser


def with_run(parser: Parser, help: str | None = None) -> Parser:
    """Add --runs and the id of one run in it."""
    with_runs(parser).add_argument("run", help=help)
    return parser


def with_checkpoint(parser: Parser) -> Parser:
    """Add --checkpoint."""
    words = "name, hub id, folder or GGUF file"
    parser.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT, help=words)
    return parser


def with_domains(
    parser: Parser, words: str = "once each, in order: name, file#column, hub:owner/name"
) -> Parser:
    """Add --domain, given once for each and at least once."""
    parser.add_argument("--domain", action="append", required=True, help=words)
    return parser


def with_protocol(
    parser: Parser, calibration: str = "16x256", propagate: bool = True, seed: bool = True
) -> Parser:
    """Add the settings of calibration and evaluation, which `protocol_from` reads.

    Args:
        parser: of the command.
        calibration: default of --calibration.
        propagate: False for a command that always propagates in one way.
        seed: False for a command with a --seed of another meaning.
    """
    parser.add_argument("--calibration", default=calibration, metavar="COUNTxLENGTH")
    parser.add_argument("--evaluation", default="12x256", metavar="COUNTxLENGTH")
    if propagate:
        parser.add_argument("--propagate", default="pruned", choices=["pruned", "dense"])
    if seed:
        parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="auto")
    return parser


def with_group(parser: Parser) -> Parser:
    """Add --group, the weights that compete with one another."""
    words = "compared within, where unstructured; default: row"
    parser.add_argument("--group", choices=["row", "layer"], help=words)
    return parser


def with_result(parser: Parser) -> Parser:
    """Add --method and --step, which name one result of a run."""
    parser.add_argument("--method", required=True)
    parser.add_argument("--step", type=int, default=None, help="default: the last")
    return parser


def with_title(parser: Parser) -> Parser:
    """Add --title."""
    parser.add_argument("--title", default="")
    return parser


def with_workers(parser: Parser) -> Parser:
    """Add where on Ray the work is spread to; without these options this process computes."""
    parser.add_argument("--ray-address", default="", help="of a running Ray cluster; default: start one here")
    words = (
        "on Ray at the same time; default: none, this process computes; with --ray-address: as many as fit"
    )
    parser.add_argument("--workers", type=int, default=0, help=words)
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    return parser


# -- what the options mean -----------------------------------------------------------------------------


def protocol_from(options: argparse.Namespace, **fixed: Any) -> Protocol:
    """Return the protocol that `with_protocol`'s options ask for.

    Args:
        options: as parsed.
        fixed: settings that the command decides itself, such as propagate="dense".

    Raises:
        InvalidValueError: for windows of another form than COUNTxLENGTH, or a value out of its range.
    """
    settings = {name: getattr(options, name) for name in _SETTINGS if hasattr(options, name)}
    return Protocol(
        calibration=Windows.parse(options.calibration),
        evaluation=Windows.parse(options.evaluation),
        **{**settings, **fixed},
    )


def cluster_from(options: argparse.Namespace) -> Cluster | None:
    """Return the cluster that `with_workers`'s options ask for, None for this process.

    Raises:
        InvalidValueError: when Ray is asked for and not installed.
    """
    if not (getattr(options, "workers", 0) or getattr(options, "ray_address", "")):
        return None
    from copal_core.experiment import cluster

    cluster.require_ray()
    return cluster.Cluster(options.ray_address, options.workers, options.threads)


def check_names(config: RunConfig) -> RunConfig:
    """Refuse unknown domains, methods and options, and files far too short, before a run's folder is made.

    Returns:
        The configuration as it means the same from any folder: files by their absolute paths.
    """
    from copal_core.domains import resolve_specs
    from copal_core.methods.build import build_methods

    domains = resolve_specs(config.domains, config.protocol.calibration, config.protocol.evaluation)
    build_methods(config)
    return RunConfig(**{**dict(config), "domains": domains})
