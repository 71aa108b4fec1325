"""Look at things without changing them: data sets, stores, results, this machine."""

from __future__ import annotations

from braindecode_pipe.inspect.diagnosis import diagnose, diagnosis_table
from braindecode_pipe.inspect.faults import Fault
from braindecode_pipe.inspect.proposal import write_recipe
from braindecode_pipe.inspect.stores import find_stores, inspect_store, open_events
from braindecode_pipe.inspect.survey import Column, Survey, describe_survey, survey
from braindecode_pipe.inspect.tables import environment, findings_table, metrics_table

__all__ = [
    "Column",
    "Fault",
    "Survey",
    "describe_survey",
    "diagnose",
    "diagnosis_table",
    "environment",
    "find_stores",
    "findings_table",
    "inspect_store",
    "metrics_table",
    "open_events",
    "survey",
    "write_recipe",
]
