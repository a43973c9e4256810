"""Event files for TensorBoard, written with its own package: no TensorFlow, no torch."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from rlstack.telemetry.loggers.backend import Opened, Scalar, Start, Values, as_given

FOLDER = "tensorboard"  # below the run's


class TensorBoard:
    """A new file for each time that the run begins or goes on, whose first event voids later steps."""

    def open(self, start: Start) -> Opened:
        self._folder = Path(start.folder) / FOLDER
        self._writer = EventFileWriter(str(self._folder))
        self._last_step = 0
        if not start.ids:
            shown = {
                key: "null" if (value := start.settings[key]) is None else value for key in start.changed
            }
            self._add(hparams_pb(shown, trial_id=start.name))
            self._text("settings", start.settings)
        return Opened({"folder": FOLDER}, f"tensorboard --logdir {as_given(self._folder.parent.parent)}")

    def log(self, step: int, values: Values) -> None:
        self._last_step = max(self._last_step, step)
        pairs = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(Summary(value=pairs), step)

    def alarm(self, step: int, title: str, text: str) -> None:
        self._add(text_pb("alarms", f"**{title}**: {text}"), step)

    def rewind(self, step: int) -> None:
        self._writer.close()
        self._writer = EventFileWriter(str(self._folder))
        self._last_step = step
        voided = SessionLog(status=SessionLog.START)
        self._writer.add_event(Event(wall_time=time.time(), step=step + 1, session_log=voided))
        self._writer.flush()

    def finish(self, status: str, summary: Mapping[str, Scalar]) -> None:
        self._text("summary", {"status": status, **summary}, self._last_step)
        self._add(_end(STATUS_SUCCESS if status == "completed" else STATUS_FAILURE))
        self._writer.close()

    def _text(self, tag: str, values: Mapping[str, Scalar], step: int = 0) -> None:
        lines = [f"    {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
        self._add(text_pb(tag, "\n".join(lines)), step)  # indented by four: a block of code

    def _add(self, summary: Summary, step: int = 0) -> None:
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()


def _end(status: int) -> Summary:
    """What closes hparams_pb; TensorBoard's own function for it needs TensorFlow."""
    data = HParamsPluginData(session_end_info=SessionEndInfo(status=status, end_time_secs=time.time()))
    value = Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(data),
        tensor=metadata.NULL_TENSOR,
    )
    return Summary(value=[value])
