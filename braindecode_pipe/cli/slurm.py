"""A batch script for SLURM that trains a recipe with the processes of several machines."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

# Below the ports that Linux gives to outgoing connections (32768 and above).
_FIRST_PORT, _N_PORTS = 20000, 10000


def sbatch_script(
    command: Sequence[str],
    *,
    name: str,
    folder: Path,
    nodes: int = 1,
    gpus: int = 1,
    time: str = "24:00:00",
    partition: str | None = None,
    threads: int = 1,
) -> str:
    """The script, ready for ``sbatch``.

    One launcher per node starts a process per GPU, or a single one where there are none; all meet
    at the first node of the job. A job that ran out of time goes on where it stopped when it is
    submitted again.

    Parameters
    ----------
    command : arguments of ``braindecode-pipe``
    name : of the job
    folder : where the job runs and its log goes; it must be there
    nodes, gpus : how many nodes; GPUs on each
    time : limit of the job, in SLURM's notation
    partition : of the cluster; default: the cluster's own choice
    threads : of each process
    """
    processes = max(1, gpus)
    options = {
        "job-name": name,
        "nodes": nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": processes * threads,
        **({"gpus-per-node": gpus} if gpus else {}),
        "time": time,
        **({"partition": partition} if partition else {}),
        "output": "slurm-%j.log",
        "chdir": folder,
    }
    launcher = [
        sys.executable, "-m", "torch.distributed.run",
        "--nnodes", str(nodes), "--nproc-per-node", str(processes),
    ]  # fmt: skip
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH --{key}={_value(value)}" for key, value in options.items()),
        "",
        "set -euo pipefail",
        "",
        "# The processes meet at the first node, at a port that belongs to this job.",
        'nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))',
        f"port=$(({_FIRST_PORT} + SLURM_JOB_ID % {_N_PORTS}))",
        f"export OMP_NUM_THREADS={threads}",
        "",
        "srun --kill-on-bad-exit=1 \\",
        f"  {shlex.join(launcher)} \\",
        '  --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "${nodes[0]}:$port" \\',
        f"  -m {shlex.join(['braindecode_pipe', *command])}",
    ]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    """A value of an option as SLURM reads it: in quotes where it holds a space."""
    text = str(value)
    return f'"{text}"' if " " in text else text
