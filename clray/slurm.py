"""Batch files for Slurm: an array of jobs that share out the trials of a sweep, or a Ray cluster on an allocation.

Both end before the queue would end them. ``--max-hours`` ends the launch some minutes before the limit of the job;
Slurm's signal SIGUSR1, which it sends to the batch shell alone, comes soon after. A job that ended so, with trials
left, puts itself into the queue again. SIGTERM ends it cleanly too, and for good. docs/slurm.md is for users.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from clray.errors import DeclarationError

LEAST_SECONDS = 120
"""The shortest limit of a job: a launch needs a minute to save, and to write its table."""
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})", re.ASCII)
_KEY = re.compile(r"[a-z][a-z0-9-]*")
_OURS = ("array", "nodes", "ntasks", "ntasks-per-node", "time", "cpus-per-task", "signal", "requeue", "no-requeue")
"""The options of sbatch that the batch file depends on: flags of ``clray slurm`` set them, or nobody does."""


@dataclass(frozen=True)
class Job:
    """The job that a batch file asks Slurm for.

    Attributes:
        name: of the job: letters, digits, dots, dashes and underscores.
        folder: the folder in which the command runs, absolute.
        python: the Python that runs clray, absolute.
        command: the arguments of clray's launch, without those that depend on the kind of job.
        made_by: the command that made the batch file, for a comment.
        seconds: the limit of its time; None for that of the partition.
        cpus: the cores of each element or node.
        requeues: how often it puts itself into the queue again.
        environment: variables that the command needs, none of them a key.
        options: further options of sbatch.
    """

    name: str
    folder: str
    python: str
    command: Sequence[str]
    made_by: str
    seconds: int | None = None
    cpus: int = 1
    requeues: int = 20
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def margin(self) -> int:
        """The seconds before the limit of its time at which the launch ends: a tenth of it, one minute to six."""
        return 360 if self.seconds is None else max(60, min(360, self.seconds // 10))


def seconds_of(time: str) -> int:
    """The seconds of a time as sbatch takes it, such as ``04:00:00``, ``90`` (minutes) or ``1-12`` (days and hours).

    Raises:
        DeclarationError: it is no such time, or too short.
    """
    found = _TIME.fullmatch(time)
    if found is None:
        raise DeclarationError(
            f"--time {time}: expected a time as sbatch takes it: MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS, "
            "DAYS-HOURS, DAYS-HOURS:MINUTES or DAYS-HOURS:MINUTES:SECONDS, such as 04:00:00"
        )
    parts = [int(part) for part in found["parts"].split(":")]
    if found["days"] is not None:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
        hours += 24 * int(found["days"])
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, minutes, seconds = 0, *(*parts, 0)[:2]
    total = 3600 * hours + 60 * minutes + seconds
    if total < LEAST_SECONDS:
        raise DeclarationError(f"--time {time}: a launch needs some time to end; allowed: at least 2 minutes")
    return total


def options_of(given: Sequence[str]) -> dict[str, str | None]:
    """The options of ``--sbatch KEY=VALUE``, or ``KEY`` alone.

    Raises:
        DeclarationError: one has another form, or is not to be set so.
    """
    found: dict[str, str | None] = {}
    for item in given:
        key, separator, value = item.partition("=")
        if not _KEY.fullmatch(key):
            raise DeclarationError(
                f"--sbatch {shlex.quote(item)}: expected KEY=VALUE, or KEY, with a long option of sbatch without its "
                "dashes, such as account=lab or exclusive"
            )
        if key in _OURS:
            raise DeclarationError(
                f"--sbatch {shlex.quote(item)}: the batch file depends on it; allowed: the flags of clray slurm "
                "(--array, --nodes, --time, --cpus-per-task, --requeues), or a change of the file by hand"
            )
        found[key] = checked(f"--sbatch {key}", value) if separator else None
    return found


def checked(flag: str, value: str) -> str:
    """A value as it may stand in a line ``#SBATCH``.

    Raises:
        DeclarationError: it is empty, or does not fit into a line.
    """
    if not value.strip() or not value.isprintable():
        raise DeclarationError(f"{flag} {shlex.quote(value)}: expected one line of text that is not empty")
    return value


def array_job(job: Job, elements: int, gpus: bool) -> str:
    """The batch file of an array whose elements run a sweep together, each trial once, by the leases of the store.

    Args:
        elements: the number of jobs of the array.
        gpus: its elements have GPUs: then each runs an embedded Ray, as ``--local`` uses none.
    """
    lines = {"array": f"0-{elements - 1}", "ntasks": "1"}
    log = f"clray-{job.name}-%A_%a.log"
    about = [
        f"{elements} jobs that share out the trials: the holder of a trial's lease in the store runs it, so that each "
        "runs once.",
        "Submit it: sbatch FILE. Submitting it again continues what is left.",
    ]
    place = ("--cpus", '"$SLURM_CPUS_PER_TASK"') if gpus else ("--local",)
    # One publisher is enough, and elements would start one each: docs/slurm.md says how to publish.
    launch = f"launch {shlex.join(_launch(job))} {' '.join(place)} --wandb off"
    requeued = '"${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"'
    return "\n".join([*_head(job, about, lines, log), *_BODY, launch, *_end(job, requeued), ""])


def ray_job(job: Job, nodes: int) -> str:
    """The batch file of one job that starts a Ray cluster on its nodes, and runs the sweep there.

    Args:
        nodes: the number of nodes; the first one is also the cluster's head.
    """
    lines = {"nodes": str(nodes), "ntasks-per-node": "1"}
    about = [
        f"A Ray cluster on {nodes} node{'s' * (nodes > 1)}, which runs the sweep and ends with the job.",
        "Submit it: sbatch FILE. Submitting it again continues what is left.",
    ]
    launch = f'launch {shlex.join(_launch(job))} --address "$head"'
    start = [line.replace("PYTHON", shlex.quote(job.python)) for line in _RAY]
    head = _head(job, about, lines, f"clray-{job.name}-%j.log")
    return "\n".join([*head, *_BODY, *start, launch, "", *_RAY_END, *_end(job, '"$SLURM_JOB_ID"'), ""])


def _launch(job: Job) -> list[str]:
    """The command of the launch, with the hours that it may take."""
    hours = (
        [] if job.seconds is None else ["--max-hours", f"{math.floor((job.seconds - job.margin) / 0.36) / 10_000:.4f}"]
    )
    return [job.python, "-m", "clray", *job.command, *hours]


def _head(job: Job, about: Sequence[str], lines: Mapping[str, str], log: str) -> Iterator[str]:
    """The first lines of a batch file, with the options of sbatch. A user's own replace ours."""
    yield "#!/bin/bash"
    yield from (f"# {line}" for line in about)
    yield f"# Made by: {job.made_by}"
    ours: dict[str, str | None] = {
        "job-name": f"clray-{job.name}",
        **lines,
        "cpus-per-task": str(job.cpus),
        **({} if job.seconds is None else {"time": _slurm_time(job.seconds)}),
        "signal": f"B:USR1@{job.margin * 2 // 3}",
        "requeue": None,
        "open-mode": "append",
        "output": log,
    }
    for key, value in {**ours, **job.options}.items():
        yield f"#SBATCH --{key}" if value is None else f"#SBATCH --{key}={_quoted(value)}"
    yield ""
    yield "# Lines such as `module load …` belong here. Keys do not: sbatch passes your environment on."
    yield "set -u"
    yield "unset RAY_ADDRESS"
    yield from (f"export {name}={shlex.quote(value)}" for name, value in job.environment.items())
    yield f"cd -- {shlex.quote(job.folder)} || exit 2"
    yield ""


def _slurm_time(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    return (f"{days}-" if days else "") + f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"


def _quoted(value: str) -> str:
    """A value in a line ``#SBATCH``, whose quotes are like a shell's."""
    if re.fullmatch(r"[\w.,:;=@%/+*\[\]()-]+", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


_BODY = (
    "# Runs a command. SIGUSR1, which Slurm sends before the time of the job is over, and SIGTERM reach the command as",
    "# SIGTERM: its trials are saved. Sets `code` to its exit code, and `stopped` where somebody else ended the job.",
    "launch() {",
    '    local child="" caught="" status',
    "    code=130",
    """    trap 'caught=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' USR1""",
    """    trap 'caught=yes; stopped=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM INT""",
    '    "$@" &',
    "    child=$!",
    '    [ -z "$caught" ] || kill -TERM "$child" 2>/dev/null  # the signal came while the command started',
    "    while",
    "        caught=",
    '        wait "$child"; status=$?',
    '        [ "$status" -eq 127 ] || code=$status',
    '        [ -n "$caught" ]',
    "    do :; done",
    "}",
    "stopped=",
    "",
)


def _end(job: Job, name: str) -> Iterator[str]:
    """The last lines: a job whose time was over goes back into the queue.

    Args:
        name: the job, as scontrol takes it.
    """
    yield ""
    yield "# 130: the launch was stopped, and trials are left. 143: SIGTERM ended it before its first trial."
    yield 'if [ "$code" -eq 143 ]; then code=130; fi'
    yield 'if [ "$code" -eq 130 ] && [ -z "$stopped" ]; then'
    if job.requeues:
        yield f'    if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {job.requeues} ]; then'
        yield '        echo "The time of this job is over, and trials are left: it goes back into the queue."'
        yield f"        scontrol requeue {name} || echo 'It cannot go back: submit this file again.'"
        yield "    else"
        yield f'        echo "Trials are left after {job.requeues} returns to the queue: submit this file again."'
        yield "    fi"
    else:
        yield '    echo "The time of this job is over, and trials are left: submit this file again."'
    yield "fi"
    yield 'exit "$code"'


_RAY = (
    "# The cluster is this job's alone: its token, its folder for temporary files and its port.",
    "export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_enable_metrics_collection=0",
    "RAY_AUTH_TOKEN=$(PYTHON -c 'import secrets; print(secrets.token_hex(32))') || exit 2",
    'RAY_TMPDIR="/tmp/clray-$SLURM_JOB_ID"',
    "export RAY_AUTH_TOKEN RAY_TMPDIR",
    "port=$((20000 + SLURM_JOB_ID % 12000))",
    "",
    "# The address by which other nodes reach this one, the first of the allocation. CLRAY_HEAD_IP names another one.",
    "here=${SLURMD_NODENAME:-$(hostname)}",
    "ip=${CLRAY_HEAD_IP:-$(getent ahostsv4 \"$here\" | awk '$1 !~ /^127\\./ { print $1; exit }')}",
    "[ -n \"$ip\" ] || ip=$(hostname -I | tr ' ' '\\n' | awk '/^[0-9]+\\./ { print; exit }')",
    '[ -n "$ip" ] || { echo "$here has no address that other nodes reach: set CLRAY_HEAD_IP" >&2; exit 2; }',
    "head=$ip:$port",
    "",
    "ray_start() {  # the options of srun, --, those of ray start",
    "    of_srun=()",
    '    while [ "$1" != -- ]; do of_srun+=("$1"); shift; done',
    "    shift",
    '    srun "${of_srun[@]}" --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \\',
    '        PYTHON -m ray.scripts.scripts start --block --num-cpus="$SLURM_CPUS_PER_TASK" \\',
    '        --object-store-memory=200000000 --min-worker-port=0 --max-worker-port=0 "$@" &',
    '    steps+=("$!")',
    "}",
    "",
    "end_ray() {",
    "    trap '' USR1 TERM INT",
    '    kill -TERM "${steps[@]}" 2>/dev/null',
    '    wait "${steps[@]}" 2>/dev/null',
    '    srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 rm -rf -- "$RAY_TMPDIR"',
    "}",
    "steps=()",
    "trap 'stopped=yes; end_ray; exit 130' USR1 TERM INT",
    'ray_start --nodes=1 --ntasks=1 --nodelist="$here" -- --head --node-ip-address="$ip" --port="$port" \\',
    "    --include-dashboard=false",
    "for _ in $(seq 120); do",
    '    (: < "/dev/tcp/$ip/$port") 2>/dev/null && break',
    '    kill -0 "${steps[0]}" 2>/dev/null || break',
    "    sleep 1",
    "done",
    'if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then',
    "    others=$((SLURM_JOB_NUM_NODES - 1))",
    '    ray_start --nodes="$others" --ntasks="$others" --exclude="$here" -- --address="$head"',
    "fi",
)

_RAY_END = ("end_ray",)
