"""Choosing the column that holds the text, and telling the user what there is."""

from __future__ import annotations

from collections.abc import Sequence

from copal_core.errors import DomainError


def choose_column(source: str, columns: Sequence[str], asked: str | None, text_columns: Sequence[str]) -> str:
    """The asked column, or `text`, or the only column with text.

    Raises DomainError that lists the columns when the asked one is missing, holds no text, or none is obvious.
    """
    listed = ", ".join(columns) or "none"
    if asked is not None:
        if asked not in columns:
            raise DomainError(f"'{source}' has no column '{asked}'; its columns: {listed}")
        if asked not in text_columns:
            texts = ", ".join(text_columns) or "none"
            raise DomainError(
                f"column '{asked}' of '{source}' does not hold text; columns with text: {texts}"
            )
        return asked
    if "text" in text_columns:
        return "text"
    if len(text_columns) == 1:
        return text_columns[0]
    if not text_columns:
        raise DomainError(f"'{source}' has no column with text; its columns: {listed}")
    raise DomainError(
        f"'{source}' has several columns with text: {', '.join(text_columns)}; "
        f"name one after a hash, such as '{source}#{text_columns[0]}'"
    )
