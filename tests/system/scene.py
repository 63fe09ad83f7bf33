"""What every system test stands on: a folder with text and configuration, the programs as processes, and waits
that end."""

import pathlib
import random
import shutil
import subprocess
import tempfile
import time

CONFIG = """
[run]
rounds = {rounds}
workers_min = 2
checkpoint_rounds = 3
commit_wait_max_ms = 8000
reveal_wait_max_ms = 5000
score_wait_max_ms = 8000
[model]
vocabulary = 320
context = 16
width = 16
layers = 1
heads = 2
key_value_heads = 1
experts = 4
expert_width = 16
[training]
batch_sequences = 2
total_steps = 200
[evaluation]
private_windows = 4
assigned_windows = 2
heldout_windows = 4
[outer]
total_rounds = {rounds}
[placement]
round_s = 1
inner_steps_first = 5
inner_steps_max = 12
[data]
path = "{data}"
sources = ["{text}"]
vocabulary = 320
heldout_percent = 10
private_percent = 10
[transport]
port = 0
heartbeat_interval_ms = 100
lease_ms = 3000
[[worker]]
name = "one"
[[worker]]
name = "two"
experts_max = 2
[[validator]]
name = "judge"
"""

SENTENCES = [
    "the quick brown fox jumps over the lazy dog",
    "a journal is written before its effect is seen",
    "nothing waits for ever and nothing fails in silence",
    "money is counted in whole numbers and never lost",
]


class Failure(Exception):
    pass


class Skipped(Exception):
    """What this machine lacks for a test."""


def check(condition, what):
    if not condition:
        raise Failure(what)


def write_text(folder, draw):
    """Two domains of sentences that `draw`, a random.Random, puts together."""
    for domain in ("one", "two"):
        (folder / domain).mkdir(parents=True)
        lines = [f"{domain} {i}: " + " ".join(draw.choice(SENTENCES) for _ in range(3)) + ".\n" for i in range(600)]
        (folder / domain / "text.txt").write_text("\n".join(lines))


class Scene:
    """A folder with text, token set and configuration."""

    def __init__(self, bin_dir, seed):
        self.bin = pathlib.Path(bin_dir)
        self.random = random.Random(seed)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="yumoe-system-"))
        write_text(self.folder / "text", self.random)

    def config(self, rounds):
        path = self.folder / f"run-{rounds}.toml"
        path.write_text(CONFIG.format(rounds=rounds, data=self.folder / "tokens", text=self.folder / "text"))
        return path

    def yumoe(self, *arguments, timeout=120):
        return subprocess.run([self.bin / "yumoe", *map(str, arguments)], capture_output=True,
                              text=True, timeout=timeout)

    def start(self, *arguments):
        return subprocess.Popen([self.bin / "yumoe", *map(str, arguments)], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def worker(self, address, name, hotkey, *more):
        """yumoe-worker, with its log in self.log_of(name)."""
        log = open(self.folder / f"{name}.log", "w")
        return subprocess.Popen([self.bin / "yumoe-worker", "worker", "--coordinator", address, "--hotkey", hotkey,
                                 "--name", name, "--data", self.folder / "tokens", "--state",
                                 self.folder / f"state-{name}", *map(str, more)], stdout=log, stderr=log)

    def log_of(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_for(what, ready, seconds):
    """What `ready` returns once that is true."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = ready()
        if found:
            return found
        time.sleep(0.05)
    raise Failure(f"waited {seconds} s for {what}")


def address_of(coordinator):
    """Where to join, as a coordinator started by Scene.start() says it."""
    for line in coordinator.stdout:
        if line.startswith("join at"):
            return line.split()[-1]
    raise Failure(f"no address was printed: {(coordinator.communicate()[1] or '')[-1500:]}")


def children_of(pid):
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            if int(stat[1]) == pid:
                found.append(int(entry.name))
        except (OSError, IndexError):
            continue
    return found
