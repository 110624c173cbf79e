"""Python under ``mpiexec``: functions that several processes call, and training scripts on them.

python -m tests.mpi call MODULE:FUNCTION ARGUMENTS
python -m tests.mpi train SOCKET PLACES LARGEST_FILE train.SCRIPT ARGUMENTS...

is what each process of ``on_processes`` and of ``Together`` runs.
"""

import contextlib
import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import traceback
from importlib.util import find_spec
from pathlib import Path

import pytest

from common.processes import connected
from tests.builders import PATIENCE
from train.run.process import number_started

ROOT = Path(__file__).parents[1]
OF_A_LAUNCHER = ("PMI", "OMPI_", "SLURM_")  # what it tells the processes that it starts
RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK")


def launcher():
    """``mpiexec`` beside Python, where pip puts it, else on the PATH; None where there is none."""
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else shutil.which("mpiexec")


def _missing():
    if find_spec("mpi4py") is None:
        return "mpi4py is not installed"
    return "" if launcher() else "there is no mpiexec, neither beside Python nor on the PATH"


needs_mpi = pytest.mark.skipif(bool(_missing()), reason=_missing())


def _popen(number, *arguments, **environment):
    """Options of ``Popen`` for Python on ``number`` processes, with one thread each."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(OF_A_LAUNCHER)}
    own |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "MPLBACKEND": "Agg"}
    return {
        "args": [launcher(), "-n", str(number), sys.executable, *map(str, arguments)],
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "cwd": ROOT,
        "env": own | environment,
    }


# ---- functions ----


def call(number, function, *arguments, **environment):
    """Exit code, stdout and stderr of ``number`` processes that call ``function(processes, ...)``.

    The function stands in a module; arguments and what it returns are such as JSON has.
    """
    name = f"{function.__module__}:{function.__name__}"
    command = ["-W", "error", "-m", "tests.mpi", "call", name, json.dumps(arguments)]
    options = _popen(number, *command, **environment)
    ended = subprocess.run(timeout=PATIENCE, check=False, **options)
    return ended.returncode, ended.stdout, ended.stderr


def on_processes(number, function, *arguments):
    """What ``function(processes, *arguments)`` returns in each of ``number`` processes."""
    code, out, err = call(number, function, *arguments)
    assert code == 0, err
    return json.loads(out.splitlines()[-1])


def _call(name, arguments):
    processes = connected(number_started())
    try:
        module, function = name.split(":")
        result = getattr(importlib.import_module(module), function)(
            processes, *json.loads(arguments)
        )
        results = processes.of_all(result)
    except Exception:
        processes.end(1, traceback.format_exc())
    if processes.first:
        print(json.dumps(results), flush=True)
    processes.leave()


# ---- training scripts ----


class Together(subprocess.Popen):
    """``python -m train.SCRIPT`` on several processes, held at places as ``tests.train.held`` does.

    Args:
        number: of processes, P.
        script: name of a module in ``train``.
        arguments: of its command line.
        places: by the number of a process, (place, number) where it waits, or (place, number,
            False) where it only tells.
        largest_file: bytes that a file of the first process may hold, 0 for no limit.
        environment: more variables.

    Attributes:
        pids: of the processes, in order.
    """

    def __init__(self, number, script, *arguments, places=None, largest_file=0, environment=None):
        waits = {
            rank: [(place, at, not wait or wait[0]) for place, at, *wait in of_rank]
            for rank, of_rank in (places or {}).items()
        }
        self.pids, self.connections = [0] * number, [None] * number
        # The path of a socket must be short.
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/socket"
            held = ["-m", "tests.mpi", "train", path, json.dumps(waits), largest_file]
            with socket.create_server(path, family=socket.AF_UNIX, backlog=number) as server:
                command = [*held, f"train.{script}", *arguments]
                super().__init__(**_popen(number, *command, **(environment or {})))
                server.settimeout(0.1)
                while not all(self.pids):
                    self._meet(server)

    def _meet(self, server):
        """Wait a little for one of the processes to say that it has started."""
        try:
            connection, _ = server.accept()
        except TimeoutError:
            if self.poll() is not None:
                raise AssertionError(f"nothing was started: {self.communicate()}") from None
            return
        connection.settimeout(PATIENCE)
        with connection.makefile() as said:
            rank, pid = json.loads(said.readline())
        self.pids[rank], self.connections[rank] = pid, connection

    def wait_for_place(self, rank=0):
        """Return once a process has come to the next of its places."""
        if not self.connections[rank].recv(1):
            code, _, err = self.finish()
            raise AssertionError(f"ended with {code} before it came to a place: {err}")

    def go_on(self, rank=0):
        """Let a process leave the place where it waits."""
        with contextlib.suppress(BrokenPipeError):  # it was ended
            self.connections[rank].sendall(b".")

    def send(self, rank, signum):
        """Send a signal to one of the processes; ``send_signal`` sends it to their launcher."""
        os.kill(self.pids[rank], signum)

    def wait_until_it_says(self, line):
        """Return once standard error has that line."""
        while (said := self.stderr.readline()) != f"{line}\n":
            assert said, "it has ended"

    def finish(self):
        """Exit code, stdout and stderr, once all have ended."""
        out, err = self.communicate(timeout=PATIENCE)
        for connection in self.connections:
            connection.close()
        return self.returncode, out, err


def run(number, script, *arguments, **options):
    """Exit code, stdout and stderr of a script on ``number`` processes that is not held."""
    return Together(number, script, *arguments, **options).finish()


def _train(path, places, largest_file, *command):
    from tests.train import held

    rank = int(next((os.environ[name] for name in RANKS if name in os.environ), 0))
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.sendall(f"{json.dumps([rank, os.getpid()])}\n".encode())
    limit = largest_file if rank == 0 else "0"
    if int(limit):
        connected(number_started())  # MPI has files of its own, before there is a limit
    own_places = json.dumps(json.loads(places).get(str(rank), []))
    sys.argv[1:] = [str(connection.detach()), limit, own_places, *command]
    held.main()


if __name__ == "__main__":
    {"call": _call, "train": _train}[sys.argv[1]](*sys.argv[2:])
