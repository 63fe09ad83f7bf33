"""Faults of placement with real processes: two workers claim one hotkey, a worker has less memory than it
claims, a worker has too little for the run. placement_run.py BIN_DIR"""

import argparse
import json
import pathlib
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from scene import Failure, Scene, address_of, check, wait_for


def status_of(scene, run):
    done = scene.yumoe("status", run, "--json")
    return json.loads(done.stdout) if done.returncode == 0 else {"participants": [], "version": 0}


def participant(scene, run, name):
    return next((p for p in status_of(scene, run)["participants"] if p["name"] == name), None)


def test_placement(scene):
    """two workers of one hotkey, false and small memory: named, and the run goes on"""
    run = scene.folder / "faults"
    config = scene.config(100_000)
    coordinator = scene.start("run", config, "--out", run)
    others = []
    try:
        address = address_of(coordinator)
        # A pipe nobody reads would hold up the run.
        import threading
        threading.Thread(target=coordinator.stdout.read, daemon=True).start()
        threading.Thread(target=coordinator.stderr.read, daemon=True).start()
        wait_for("first round", lambda: status_of(scene, run)["version"] >= 1, 90)

        one = scene.worker(address, "first-alice", "//Alice")
        others.append(one)
        wait_for("contribution of the first", lambda: (participant(scene, run, "first-alice") or {}).get("steps"), 90)
        two = scene.worker(address, "second-alice", "//Alice")
        others.append(two)
        wait_for("refusal of the second",
                 lambda: "another process speaks for hotkey" in scene.log_of("second-alice"), 90)
        check(participant(scene, run, "second-alice") is None, "the second took the first one's place")
        check(one.poll() is None and participant(scene, run, "first-alice")["active"], "the first was thrown out")
        two.kill()
        two.wait()

        # Claims a million GiB; the address space it has holds far less.
        liar = scene.worker(address, "liar", "//Bob", "--memory-mib-max", 1 << 30)
        others.append(liar)
        remark = wait_for("remark on memory", lambda: "the machine has only" in
                          (participant(scene, run, "liar") or {}).get("reason", ""), 90)
        check(remark, "no remark")
        wait_for("contribution of the corrected", lambda: participant(scene, run, "liar")["steps"] > 0, 90)

        small = scene.worker(address, "small", "//Charlie", "--memory-mib-max", 1)
        others.append(small)
        check(small.wait(60) == 2, f"a worker without memory ended with {small.returncode}")
        check("memory limit would be exceeded" in scene.log_of("small"), f"unclear: {scene.log_of('small')}")
        check("memory limit" in participant(scene, run, "small")["reason"], "the coordinator does not know why")

        shown = scene.yumoe("placement", "show", run)
        check(shown.returncode == 0 and "no plan can be shorter than" in shown.stdout, f"show: {shown.stdout}{shown.stderr}")
        table = json.loads(scene.yumoe("placement", "show", run, "--json").stdout)
        check(table["makespan_s"] >= table["lower_bound_s"] > 0, f"bound: {table}")
        two_experts = next(w for w in table["workers"] if w["name"] == "two")
        check(len(two_experts["experts"]) == 2 and "experts_max" in two_experts["why"], f"why: {two_experts}")
        check(all(n >= 2 for n in table["holders"]), f"replicas: {table['holders']}")
        check(all(w["memory_mib"] > 0 and w["round_trip_ms"] > 0 and w["up_bytes_per_s"] > 0
                  for w in table["workers"] if w["experts"]), f"not measured: {table['workers']}")
        missing = scene.yumoe("placement", "show", run, "--round", 99_999_999)
        check(missing.returncode == 2 and "has no round" in missing.stderr, f"missing: {missing.stderr}")
        print(re.sub("^", "      ", shown.stdout.strip(), flags=re.M))
    finally:
        for other in others:
            other.kill()
            other.wait()
        coordinator.send_signal(signal.SIGINT)
        coordinator.wait(60)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bin_dir")
    choice = parser.parse_args()
    scene = Scene(choice.bin_dir, 1)
    failed = False
    start = time.time()
    try:
        test_placement(scene)
        print(f"ok    {test_placement.__doc__} ({time.time() - start:.0f} s)", flush=True)
    except (Failure, subprocess.TimeoutExpired) as failure:
        failed = True
        print(f"FAILED {test_placement.__doc__}: {failure}\n  again: placement_run.py {choice.bin_dir}")
        for log in scene.folder.glob("*.log"):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-600:]}")
    scene.close()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
