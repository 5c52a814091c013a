"""Text domains: built-in, from a file, or from the hub."""

from __future__ import annotations

from copal_core.domains.base import Document, Domain, DomainInfo
from copal_core.domains.builtin import BUILTINS
from copal_core.domains.sample import Sample

__all__ = ["BUILTINS", "Document", "Domain", "DomainInfo", "Sample"]
