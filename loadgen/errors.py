"""Every way in which a run can fail, as sentences.

A failed *request* is data and lives in its record; a failed *run* is one of these. Each message says what happened,
where, with which value, and what to do about it. The exit code is part of the contract with cron and CI::

    LoadgenError                1   something that should not happen; a bug, or a full disk
    ├── UsageError              2   a flag or an argument that cannot be used
    │   └── ScenarioError       2   a scenario file that cannot be used: file:line:column: path: reason
    ├── TargetError             6   an endpoint that does not answer as it must
    │   └── LaunchError         6   an engine that could not be started, got lost, or could not be stopped
    ├── PreflightError          6   something that would make a night worthless, found before anything was started
    ├── StoreError              1   the results folder cannot be read or written
    └── BusyError              75   another run holds the lock

Exit codes without an exception: 0 good, 3 an objective missed, 4 a confirmed regression, 5 a measurement that is
invalid or degraded, 130 and 143 interrupted (SIGINT, SIGTERM) with what was measured kept and reported.
"""

from __future__ import annotations


class LoadgenError(Exception):
    """A run that cannot go on. ``str(error)`` is a sentence for the user; ``exit_code`` is for cron and CI."""

    exit_code = 1


class UsageError(LoadgenError):
    """A flag or argument that cannot be used."""

    exit_code = 2


class ScenarioError(UsageError):
    """A scenario that cannot be used. The message starts with ``file:line:column: path:`` where there is a line."""


class TargetError(LoadgenError):
    """An endpoint that does not answer as its protocol says."""

    exit_code = 6


class LaunchError(TargetError):
    """An engine that could not be started, was lost, or could not be stopped; the message ends with its log's tail."""


class PreflightError(LoadgenError):
    """A night that is not begun: a GPU that is not free, a model that is not there, an endpoint that is down."""

    exit_code = 6


class StoreError(LoadgenError):
    """The results folder cannot be read or written."""


class BusyError(LoadgenError):
    """Another run holds the lock."""

    exit_code = 75


EXIT_OK = 0
EXIT_OBJECTIVE_MISSED = 3
EXIT_REGRESSION = 4
EXIT_INVALID = 5
EXIT_FAILED = 6
EXIT_SIGINT = 130
EXIT_SIGTERM = 143
