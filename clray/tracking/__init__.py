"""The publisher: sends the trials of a results store to Weights & Biases, each as one run.

The publisher only reads the store, and training knows nothing of it. It can die, hang or be absent without harm to a
sweep, and ``clray publish NAME`` sends later, from the same records, what it did not send. While a sweep runs, the
publisher is a separate process (``start``) that follows the store until it is asked to stop or its parent is gone.

The W&B run of a trial has the trial's id. Row ``k`` of its history is always W&B step ``k``, and a resumed run says how
many steps it has. So publishing again, also from another machine, sends the missing rows and no row twice. W&B cannot
rewrite history: where a trial was run again with other numbers, there is a second run, whose id is the trial's id and
the digest of its rows, and the first run stays. A completely published trial is noted in ``published/ID.json`` below
the folder and not sent again.

Modules: ``login``, server, key and mode · ``publication``, a publication and its outcome · ``content``, the content of
a run · ``notes``, earlier publications · ``wandb_runs``, one run · ``table_artifacts``, a table · ``pages``, a page of
a reproduction · ``publisher``, one pass over a store · ``following``, passes while a sweep runs. Nothing outside this
folder imports wandb, and these modules import it only when they use it.
"""

from clray.tracking.content import history
from clray.tracking.following import Follower, start
from clray.tracking.login import Mode, TrackingError, asked_mode, base_url, default_mode, logged_in
from clray.tracking.publication import Publication, PublicationResult
from clray.tracking.publisher import publish

__all__ = [
    "Follower",
    "Mode",
    "Publication",
    "PublicationResult",
    "TrackingError",
    "asked_mode",
    "base_url",
    "default_mode",
    "history",
    "logged_in",
    "publish",
    "start",
]
