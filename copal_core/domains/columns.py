"""Choice of the column that holds the text of a table."""

from __future__ import annotations

from collections.abc import Sequence

from copal_core.errors import DomainError


def choose_column(
    source: str, columns: Sequence[str], requested: str | None, text_columns: Sequence[str]
) -> str:
    """Return the requested column, else `text`, else the only column with text.

    Args:
        source: name of the table in messages.
        columns: all columns.
        requested: the column that the user named, if any.
        text_columns: the columns that hold text.

    Raises:
        DomainError: the requested column is missing or holds no text, or the choice is ambiguous; the message
            lists the columns.
    """
    listed = ", ".join(columns) or "none"
    if requested is not None:
        if requested not in columns:
            raise DomainError(f"'{source}' has no column '{requested}'; its columns: {listed}")
        if requested not in text_columns:
            texts = ", ".join(text_columns) or "none"
            raise DomainError(
                f"column '{requested}' of '{source}' does not hold text; columns with text: {texts}"
            )
        return requested
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
