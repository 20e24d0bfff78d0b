#!/usr/bin/env python3
"""Prints the scalars of a run's TensorBoard files as TensorBoard itself reads them: one JSON object, from tags to lists
of [step, value]. Needs the package tensorboard.

usage: read_events.py RUN
"""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
events.Reload()
tags = events.Tags()["scalars"]
print(json.dumps({tag: [[event.step, event.value] for event in events.Scalars(tag)] for tag in tags}))
