"""A run as a Slurm job on two nodes: a real slurmctld and two slurmd, each in network, UTS and mount
namespaces of its own on this machine. Ends with 77 (skipped) and the reason where that cannot be made.

slurm_run.py BIN_DIR [--keep]"""

import argparse
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from scene import Failure, Scene, check

SKIPPED = 77
PREFIX = "ymsl"     # of links and namespaces, so that only our own are taken down
NET = "10.78.0"

CONF = """
ClusterName=yumoe-test
SlurmctldHost={host}({net}.254)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={dir}/munge.sock
CredType=cred/munge
SlurmctldPort=16917
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd-%n.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd-%n.log
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
ReturnToService=2
KillWait=5
InactiveLimit=0
TmpFS={dir}/tmp-%n
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname=n1 NodeAddr={net}.1 Port=17101 CPUs=4 RealMemory=4000 State=UNKNOWN
NodeName=n2 NodeHostname=n2 NodeAddr={net}.2 Port=17101 CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


class Skipped(Exception):
    pass


def call(*command, **options):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)


def must(*command):
    done = call(*command)
    if done.returncode != 0:
        raise Skipped(f"`{' '.join(map(str, command))}`: {done.stderr.strip()[-300:]}")


class Cluster:
    def __init__(self, folder):
        self.dir = pathlib.Path(folder)
        self.children = []
        self.environment = dict(os.environ, SLURM_CONF=str(self.dir / "slurm.conf"))

    def start(self):
        for program in ("slurmctld", "slurmd", "munged", "ip", "nsenter", "unshare"):
            if shutil.which(program) is None:
                raise Skipped(f"{program} is not installed (apt-get install slurm-wlm munge iproute2)")
        if os.geteuid() != 0:
            raise Skipped("namespaces need root")
        # Links, addresses and ports are the machine's, and a run begins by taking them down: one at a time.
        self.turn = open("/run/yumoe-slurm-test.lock", "w")
        fcntl.flock(self.turn, fcntl.LOCK_EX)
        self.stop_network()
        must("ip", "link", "add", PREFIX + "br", "type", "bridge")
        must("ip", "addr", "add", NET + ".254/24", "dev", PREFIX + "br")
        must("ip", "link", "set", PREFIX + "br", "up")
        for i in (1, 2):
            name, link = f"{PREFIX}-n{i}", f"{PREFIX}v{i}"
            must("ip", "netns", "add", name)
            must("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
            must("ip", "link", "set", link, "master", PREFIX + "br", "up")
            must("ip", "-n", name, "addr", "add", f"{NET}.{i}/24", "dev", "eth0")
            must("ip", "-n", name, "link", "set", "eth0", "up")
            must("ip", "-n", name, "link", "set", "lo", "up")
        self.dir.chmod(0o755)
        (self.dir / "state").mkdir()
        for i in (1, 2):
            (self.dir / f"tmp-n{i}").mkdir()
        host = call("hostname", "-s").stdout.strip()
        (self.dir / "slurm.conf").write_text(CONF.format(dir=self.dir, net=NET, host=host))
        (self.dir / "hosts").write_text(f"127.0.0.1 localhost\n{NET}.1 n1\n{NET}.2 n2\n{NET}.254 {host}\n")
        key = self.dir / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self.spawn("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={self.dir}/munge.sock",
                   f"--pid-file={self.dir}/munged.pid", f"--log-file={self.dir}/munged.log",
                   f"--seed-file={self.dir}/munge.seed")
        self.wait(lambda: (self.dir / "munge.sock").exists(), "munged's socket")
        self.spawn("slurmctld", "-D")
        for i in (1, 2):
            # Not `ip netns exec`: it mounts /sys anew, and slurmd does not live without its cgroups.
            self.spawn("nsenter", f"--net=/run/netns/{PREFIX}-n{i}", "unshare", "--uts", "--mount", "bash", "-c",
                       f"hostname n{i}; mount -t tmpfs tmpfs /dev/shm; mount --bind {self.dir}/hosts /etc/hosts; "
                       f"exec slurmd -D -N n{i}")
        self.wait(lambda: self.run("sinfo", "-h", "-o", "%T %D").stdout.split() == ["idle", "2"], "two idle nodes")

    def spawn(self, *command):
        log = open(self.dir / f"{command[0]}-{len(self.children)}.out", "wb")
        self.children.append(subprocess.Popen(command, stdout=log, stderr=log, env=self.environment,
                                              start_new_session=True))

    def wait(self, ready, what, seconds=40):
        until = time.time() + seconds
        while time.time() < until:
            if ready():
                return
            for child in self.children:
                if child.poll() is not None:
                    raise Skipped(f"{child.args[0]} ended with {child.returncode} while waiting for {what}: "
                                  + self.last_words())
            time.sleep(0.5)
        raise Skipped(f"no {what} after {seconds} s: " + self.last_words())

    def last_words(self):
        return " | ".join(p.read_text(errors="replace")[-200:] for p in sorted(self.dir.glob("*.log")))

    def run(self, *command, **options):
        return call(*command, env=self.environment, **options)

    def stop(self):
        self.run("scancel", "--state=RUNNING", "--full")
        time.sleep(1)
        for child in reversed(self.children):
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        for child in self.children:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        self.stop_network()

    @staticmethod
    def stop_network():
        for i in (1, 2):
            call("ip", "netns", "del", f"{PREFIX}-n{i}")
            call("ip", "link", "del", f"{PREFIX}v{i}")
        call("ip", "link", "del", PREFIX + "br")


def test_slurm(scene, cluster, processes):
    """a run submitted by `yumoe launch slurm` trains to its end on two nodes"""
    config = scene.config(4)
    text = config.read_text().replace("workers_min = 2", "workers_min = 1")
    # The job brings its own island; [[worker]] entries are for one machine.
    config.write_text(text.split("[[worker]]")[0] + '[[validator]]\nname = "judge"\n')
    out = scene.folder / "slurm-run"
    flags = ["launch", "slurm", config, "--out", out, "--nodes", 2, "--processes-per-node", processes, "--name", "test",
             "--time", "10"]
    printed = scene.yumoe(*flags, "--print")
    check(printed.returncode == 0 and "#SBATCH --nodes=2" in printed.stdout, f"--print: {printed.stderr}")
    submitted = cluster.run(scene.bin / "yumoe", *map(str, flags))
    check(submitted.returncode == 0, f"not submitted: {submitted.stderr}")
    job = submitted.stdout.split("Submitted batch job")[1].split()[0]
    until = time.time() + 300
    state = ""
    while time.time() < until:
        state = cluster.run("scontrol", "-o", "show", "job", job).stdout
        state = state.split("JobState=")[1].split()[0] if "JobState=" in state else state
        if state in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"):
            break
        time.sleep(1)
    logs = "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')[-1500:]}"
                     for p in [*out.glob("*.log"), *out.glob("logs/*")])
    check(state == "COMPLETED", f"job {job}: {state}\n{logs}")
    status = json.loads(scene.yumoe("status", out, "--json").stdout)
    check(status["phase"] == "finished" and status["version"] == 4, f"status: {status}\n{logs}")
    island = next(p for p in status["participants"] if p["name"] == "island")
    check(island["steps"] > 0, f"the island did nothing: {island}\n{logs}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bin_dir")
    parser.add_argument("--keep", action="store_true", help="leave the folders for a look")
    parser.add_argument("--processes-per-node", type=int, default=1)
    choice = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="yumoe-slurm-")
    scene, cluster = Scene(choice.bin_dir, 1), Cluster(folder)
    status = 0
    start = time.time()
    try:
        cluster.start()
        print(f"      two nodes are idle ({time.time() - start:.0f} s)", flush=True)
        test_slurm(scene, cluster, choice.processes_per_node)
        print(f"ok    {test_slurm.__doc__} ({time.time() - start:.0f} s)", flush=True)
    except Skipped as why:
        print(f"skipped: {why}")
        status = SKIPPED
    except (Failure, subprocess.TimeoutExpired) as failure:
        print(f"FAILED {test_slurm.__doc__}: {failure}")
        status = 1
    finally:
        cluster.stop()
        if not choice.keep:
            scene.close()
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
