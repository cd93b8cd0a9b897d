"""Every error a user can cause, on one page; each carries its exit code.

An error message says what was found, what was expected and what to do. Anything that is not a
:class:`FusionrecError` is a bug in fusionrec and ends with exit code 1.
"""

from __future__ import annotations


class FusionrecError(Exception):
    """Base of the family. ``str(error)`` is the whole message; its first line is the one-line cause."""

    exit_code = 1


class UsageError(FusionrecError):
    """The command line was wrong (exit 2)."""

    exit_code = 2


class DataRejected(FusionrecError):
    """The catalogue or the log broke a hard rule (exit 3); one line per broken rule."""

    exit_code = 3


class GateFailed(FusionrecError):
    """A challenger may not become champion (exit 4)."""

    exit_code = 4


class DriftDetected(FusionrecError):
    """The current data differs from the reference (exit 5)."""

    exit_code = 5


class Unavailable(FusionrecError):
    """A service (MLflow, Prefect, a remote) did not answer in time (exit 69)."""

    exit_code = 69


class Busy(FusionrecError):
    """Another run holds the project (exit 75)."""

    exit_code = 75


class ConfigError(FusionrecError):
    """params.yaml, an environment variable or a weights file is not usable (exit 78)."""

    exit_code = 78


class IntegrityError(FusionrecError):
    """A file does not match its recorded sha256 or format; it is not loaded (exit 78)."""

    exit_code = 78
