"""Decoding of bytes as UTF-8, with a helpful error for any other content."""

from __future__ import annotations

import codecs

from copal_core.errors import DomainError

_MARKS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16", codecs.BOM_UTF32_BE: "UTF-32"}


def decode(content: bytes, source: str, offset: int = 0) -> str:
    """Decode UTF-8 text; drop a byte order mark and turn every line end into \\n.

    Args:
        content: the bytes.
        source: name of the file in messages.
        offset: position of `content` in its file, in bytes.

    Raises:
        DomainError: the bytes are in another encoding, or are not text.
    """
    if offset == 0:
        for mark, name in _MARKS.items():
            if content.startswith(mark):
                raise DomainError(f"'{source}' is {name} text; save it as UTF-8")
        content = content.removeprefix(codecs.BOM_UTF8)
    zero = content.find(b"\0")
    if zero >= 0:
        raise DomainError(
            f"'{source}' holds binary data (a zero byte at position {offset + zero:,}); choose a text file"
        )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DomainError(
            f"'{source}' is not valid UTF-8 (byte 0x{content[error.start]:02x} at position "
            f"{offset + error.start:,}); save it as UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def whole_characters(content: bytes) -> bytes:
    """Return `content` without the incomplete UTF-8 characters that an arbitrary cut leaves at both ends."""
    start = 0
    while start < min(4, len(content)) and content[start] & 0xC0 == 0x80:
        start += 1
    for back in range(1, min(4, len(content)) + 1):
        byte = content[-back]
        if byte & 0xC0 == 0x80:
            continue
        width = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        return content[start : len(content) - back] if width > back else content[start:]
    return content[start:]
