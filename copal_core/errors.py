"""Errors that a user can cause or meet. Any other exception is a defect.

Each message is one or two sentences: the value, the rule it breaks, and a value or action that would work.
"""

from __future__ import annotations


class CopalError(Exception):
    """Base of every error that is shown to the user as it is."""


class InvalidValueError(CopalError, ValueError):
    """A caller's value breaks a rule."""


class CheckpointError(CopalError):
    """A checkpoint cannot be found, read or understood."""


class DomainError(CopalError):
    """A text source cannot be read, or does not hold enough text."""


class RunError(CopalError):
    """A run's folder is missing, damaged, or in the wrong state for the requested action."""


class NumericalError(CopalError):
    """A computation produced meaningless numbers (NaN, infinity, a singular matrix)."""


class Cancelled(CopalError):
    """The user cancelled the run."""
