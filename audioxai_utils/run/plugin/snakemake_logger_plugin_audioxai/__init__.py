"""What Snakemake tells a run: how many steps there are, which ones, and what went wrong.

Snakemake finds this package by its name on the path of a run's process (``--logger audioxai``).
"""

from __future__ import annotations

import logging

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from audioxai_utils.run.progress import tell


class LogHandler(LogHandlerBase):
    """Hands on Snakemake's records as events of the run."""

    writes_to_stream = writes_to_file = has_formatter = needs_rulegraph = False
    has_filter = True  # everything is looked at, whatever is printed

    def emit(self, record: logging.LogRecord) -> None:
        """Tell what the record is about, if the run wants to know it."""
        event = getattr(record, "event", None)
        if event == LogEvent.RUN_INFO:
            tell("snakemake", "plan", total=record.stats["total"] - record.stats.get("all", 0))
        elif event == LogEvent.JOB_INFO and record.output:
            tell("snakemake", "step", record=record.output[0])
        elif record.levelno >= logging.ERROR and record.getMessage() != "None":
            tell("snakemake", "error", text=record.getMessage())
