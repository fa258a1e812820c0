"""The publisher: sends the trials of a results store to Weights & Biases, each as one run.

It reads the store and nothing else, so training never knows about it: it can die, hang or be absent without touching
a sweep, and what it did not send is sent later from the same records (``clray publish NAME``). While a sweep runs it
lives in a process of its own (``start``), which follows the store until it is told to stop or its parent is gone.

A trial's run has the trial's id. Row ``k`` of its history is always W&B step ``k``, and a resumed run tells the step
it has come to, so that publishing again, from here or elsewhere, sends what is missing and no row twice. W&B cannot
rewrite history: where a trial was run again and its numbers changed, a new run ``ID-rerun2`` is made and the earlier
one stays. What was published to the end is noted in ``published/ID.json`` below the folder, and not sent again.

Rooms: ``login``, who and where · ``publication``, what is published and what came of it · ``content``, a record as W&B
shows it · ``notes``, what was published before · ``runs``, one run · ``tables``, a sweep's table · ``dashboards``, a
page for each reproduction · ``publisher``, one pass over a store · ``following``, passes while a sweep runs. Nothing
outside this folder imports wandb, and here it is imported when it is used.
"""

from clray.tracking.content import history
from clray.tracking.following import Follower, start
from clray.tracking.login import Mode, TrackingError, asked_mode, base_url, default_mode, logged_in
from clray.tracking.publication import Outcome, Publication
from clray.tracking.publisher import publish

__all__ = [
    "Follower",
    "Mode",
    "Outcome",
    "Publication",
    "TrackingError",
    "asked_mode",
    "base_url",
    "default_mode",
    "history",
    "logged_in",
    "publish",
    "start",
]
