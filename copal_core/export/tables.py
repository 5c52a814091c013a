"""Every table of a run, as CSV, Parquet or JSON in one zip."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from copal_core.errors import InvalidValueError
from copal_core.figures import forgetting, stasis
from copal_core.methods.describe import removed
from copal_core.store.run_store import RunStore
from copal_core.system import files

if TYPE_CHECKING:
    import pandas as pd

FORMATS = {"csv": "CSV", "parquet": "Parquet", "json": "JSON"}


def tables_of(store: RunStore) -> dict[str, pd.DataFrame]:
    """name -> table: what was recorded, and what is computed from it. Empty ones are left out."""
    import pandas as pd

    perplexity, layers = store.perplexity(), store.layers()
    methods, domains = [str(method) for method in store.config.methods], store.domains
    matrices = [
        forgetting.matrix_table(perplexity, method, domains).reset_index().assign(method=method)
        for method in methods
    ]
    found = {
        "summary": forgetting.summary_table(perplexity, methods, domains),
        "matrices": pd.concat(matrices, ignore_index=True),
        "stasis": stasis.step_table(layers, methods),
        "perplexity": perplexity,
        "layers": layers,
        "overlaps": store.overlaps(),
        "factors": store.factors(),
        "neurons": store.records.table("neurons"),
        "warnings": store.warnings(),
        "seconds": store.records.table("seconds"),
    }
    return {name: table for name, table in found.items() if len(table)}


def encode(table: pd.DataFrame, form: str) -> bytes:
    """One table's bytes. Raises InvalidValueError for an unknown format."""
    if form == "csv":
        return bytes(table.to_csv(index=False).encode())
    if form == "json":
        return str(table.to_json(orient="records", indent=1, force_ascii=False)).encode()
    if form == "parquet":
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        return buffer.getvalue()
    raise InvalidValueError(f"format '{form}' is not known; use {', '.join(FORMATS)}")


def write_tables(store: RunStore, out: Path, form: str) -> Path:
    """Write a zip of all tables, and README.txt with the protocol. Raises RunError when `out` cannot be written."""
    contents = {f"{name}.{form}": encode(table, form) for name, table in tables_of(store).items()}
    gone = removed(store.config)
    words = (
        f"Run {store.id}\nProtocol: {store.protocol_stamp()}\nRemoved: {gone}\nPerplexity: lower is better.\n"
    )
    return write_zip(out, {"README.txt": words.encode(), **contents})


def write_zip(out: Path, contents: dict[str, bytes]) -> Path:
    """A zip with a fixed time on every entry, so that equal contents are equal bytes."""

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)

    files.write_atomically(out, write)
    return out
