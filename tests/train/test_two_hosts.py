"""Two hosts with addresses of their own on one machine: network namespaces, and a cable to pull.

Needs Linux, root, ``ip`` and MPICH; else these tests are skipped.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests.builders import PATIENCE
from tests.mpi import ROOT, launcher, needs_mpi
from tests.train.processes import TEXT, log_of, new_run, run

pytestmark = [needs_mpi, pytest.mark.slow]

NETWORK = "198.18.77"  # of the range that is for tests of networks (RFC 2544)
BRIDGE = "tlayers0"
HOSTS = (2, 3)  # the last number of the address
START = """#!/bin/bash
# What mpiexec calls in place of ssh: its options, the host, the command.
while [[ $1 == -* ]]; do shift; done
number=${1##*.}; shift
exec ip netns exec tlayers$number unshare -u bash -c "hostname host$number; exec $*"
"""


def command(line):
    """Run a command of the system."""
    subprocess.run(line.split(), check=True, capture_output=True)


def remove_hosts():
    """Take the hosts away, also those that an earlier run has left."""
    for line in [f"ip netns del tlayers{k}" for k in HOSTS] + [f"ip link del {BRIDGE}"]:
        subprocess.run(line.split(), check=False, capture_output=True)


@pytest.fixture(scope="module")
def the_only_one():
    """Inside, no other process of this machine has these tests: the names are taken once."""
    fcntl = pytest.importorskip("fcntl", reason="no locks of files")
    with Path(tempfile.gettempdir(), "time-layers-two-hosts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def hosts(the_only_one):
    """Two namespaces, each with a cable to one bridge."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("only root can make network namespaces, with ip")
    about = subprocess.run([launcher(), "-info"], capture_output=True, text=True, check=False)
    if "HYDRA" not in about.stdout:
        pytest.skip("the launcher is not that of MPICH")
    remove_hosts()
    try:
        command(f"ip link add {BRIDGE} type bridge")
        command(f"ip addr add {NETWORK}.1/24 dev {BRIDGE}")
        command(f"ip link set {BRIDGE} up")
        for k in HOSTS:
            command(f"ip netns add tlayers{k}")
            command(f"ip link add tlcable{k} type veth peer name eth0 netns tlayers{k}")
            command(f"ip link set tlcable{k} master {BRIDGE}")
            command(f"ip link set tlcable{k} up")
            command(f"ip netns exec tlayers{k} ip addr add {NETWORK}.{k}/24 dev eth0")
            command(f"ip netns exec tlayers{k} ip link set eth0 up")
            command(f"ip netns exec tlayers{k} ip link set lo up")
    except subprocess.CalledProcessError as error:
        remove_hosts()
        pytest.skip(f"no network namespaces: {error.stderr.decode().strip()}")
    yield
    remove_hosts()


@pytest.fixture
def text_file(tmp_path):
    """A small text."""
    file = tmp_path / "cats.txt"
    file.write_text(TEXT)
    return file


def on_two_hosts(tmp_path, *arguments):
    """A training script with a process on each host, which meet over TCP alone."""
    start = tmp_path / "start"
    start.write_text(START)
    start.chmod(0o755)
    where = ["-launcher", "ssh", "-launcher-exec", str(start), "-iface", BRIDGE]
    addresses = ",".join(f"{NETWORK}.{k}" for k in HOSTS)
    tcp = ["-genv", "UCX_TLS", "tcp"]  # else the two would meet in the memory of the machine
    script = [sys.executable, "-u", "-m", *map(str, arguments)]
    return subprocess.Popen(
        [launcher(), *where, "-hosts", addresses, *tcp, "-n", "2", *script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TIMELAYERS_PATIENCE": "3", "MPLBACKEND": "Agg"},
    )


@pytest.mark.usefixtures("hosts")
def test_a_run_on_two_hosts_is_the_run_on_one(text_file, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert run("better_rnnlm", *new_run(text_file, alone, epochs=2, lr=1))[0] == 0
    options = new_run(text_file, together, epochs=2, lr=1)
    process = on_two_hosts(tmp_path, "train.better_rnnlm", *options, "--verbose")
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert "4 streams on 2 processes, 2 machines" in said
    assert "process 2 on host3: streams 2 to 3" in said
    for expected, got in zip(log_of(alone), log_of(together), strict=True):
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value, rtol=1e-5)


@pytest.mark.usefixtures("hosts")
def test_a_cable_that_is_pulled_ends_all_and_the_run_goes_on_later(text_file, tmp_path):
    out = tmp_path / "run"
    options = new_run(text_file, out, epochs=1000, lr=1)
    process = on_two_hosts(tmp_path, "train.better_rnnlm", *options)
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("| epoch 2 |"):
            command(f"ip link set tlcable{HOSTS[1]} down")
            break
    rest, _ = process.communicate(timeout=PATIENCE)
    said = "".join(said) + rest
    assert process.returncode == 1, said
    assert said.count("has not answered for") == 1, said
    more = ["--resume", out, "--stop-after", 1]
    code, said, err = run("better_rnnlm", *more)
    assert code == 0, err
    assert "goes on after iteration" in said
