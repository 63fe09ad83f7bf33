"""An island of real processes under mpirun is one worker of a run; a rank is killed, then one hangs, and the
island goes on with what is left: started again or, with a yumoe-worker of the `ulfm` preset, in the same processes.
island.py BIN_DIR [--ulfm ITS_YUMOE_WORKER]"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from scene import CONFIG, Failure, Scene, address_of, check, children_of, wait_for


def descendants_of(pid):
    found = []
    for child in children_of(pid):
        found += [child] + descendants_of(child)
    return found


def ranks_of(pid):
    """Rank -> process id of the yumoe-worker processes below `pid`."""
    ranks = {}
    for child in descendants_of(pid):
        try:
            command = pathlib.Path(f"/proc/{child}/cmdline").read_bytes()
            environ = pathlib.Path(f"/proc/{child}/environ").read_bytes()
        except OSError:
            continue
        marks = [v for v in environ.split(b"\0") if v.startswith(b"OMPI_COMM_WORLD_RANK=")]
        if marks and b"yumoe-worker" in command:
            ranks[int(marks[0].split(b"=")[1])] = child
    return ranks


def island_lives(island):
    check(island.poll() is None, f"the island ended by itself: {island.returncode}")
    return True


def kill_first(island, log, answered, as_one_worker, ulfm):
    """Kills rank 1 of 3; how long until two ranks are the island."""
    ranks = ranks_of(island.pid)
    os.kill(ranks[1], signal.SIGKILL)
    killed = time.time()
    again = "formed again with 2 ranks" if ulfm else "an island of 2 ranks"
    wait_for("the island without the killed rank", as_one_worker(lambda: again in log.read_text()), 60)
    formed = time.time() - killed
    if ulfm:
        check("rank 1 of 3" in log.read_text(), "the killed rank was not named")
        check("starting again" not in log.read_text(), "the processes were started again")
        left = ranks_of(island.pid)
        check(left == {0: ranks[0], 2: ranks[2]}, f"the processes are others: {ranks} then {left}")
    else:
        check("process rank 1" in log.read_text() and "lost one" in log.read_text(), "the killed rank was not named")
    before = answered()
    wait_for("a contribution of two ranks", lambda: answered() > before, 60)
    return formed


def kill_speaker(island, log, answered, as_one_worker):
    """Kills rank 0 of 2, which only new processes can follow; how long until they are started."""
    os.kill(ranks_of(island.pid)[0], signal.SIGKILL)
    killed = time.time()
    wait_for("the island without rank 0", as_one_worker(lambda: "starting again with 1" in log.read_text()), 60)
    took = time.time() - killed
    check("rank 0, which speaks for the island, is lost" in log.read_text(), "it was not said that rank 0 is lost")
    before = answered()
    wait_for("a contribution of one rank", lambda: answered() > before, 60)
    return took


def test_island(scene, ulfm):
    run = scene.folder / "run"
    config = scene.folder / "run.toml"
    config.write_text(CONFIG.format(rounds=100_000, data=scene.folder / "tokens", text=scene.folder / "text")
                      .replace("batch_sequences = 2", "batch_sequences = 3")
                      .replace("lease_ms = 3000", "lease_ms = 15000"))
    process = scene.start("run", config, "--out", run)
    address = address_of(process)
    log = scene.folder / "island.log"
    environ = dict(os.environ, TMPDIR="/tmp", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                   OMPI_MCA_mpi_yield_when_idle="1")
    with log.open("w") as out:
        island = subprocess.Popen(
            [ulfm or scene.bin / "yumoe-worker", "island", "-n", "3", "--mpirun-option=--oversubscribe",
             "--mpirun-option=--allow-run-as-root", "worker",
             "--coordinator", address, "--hotkey", "//Island", "--name", "island", "--data",
             scene.folder / "tokens", "--state", scene.folder / "state", "--device", "cpu"],
            stdout=out, stderr=subprocess.STDOUT, env=environ)
    try:
        answered = lambda: log.read_text().count(" steps, loss ")

        def as_one_worker(condition):
            """`condition`, and that the coordinator sees one worker, late perhaps but never gone."""
            def holds():
                status = json.loads(scene.yumoe("status", run, "--json").stdout)
                seen = [p for p in status["participants"] if p["name"] == "island"]
                check(len(seen) == 1 and seen[0]["active"], f"the island at the coordinator: {seen}")
                return condition()
            return holds

        wait_for("the island's first contribution", lambda: island_lives(island) and "an island of 3 ranks" in log.read_text() and answered() > 1, 60)
        formed = kill_first(island, log, answered, as_one_worker, ulfm)
        second = max(ranks_of(island.pid))  # as mpirun counts
        os.kill(ranks_of(island.pid)[second], signal.SIGSTOP)
        hung = time.time()
        wait_for("the island without the hanging rank",
                 as_one_worker(lambda: f"starting again with {2 if ulfm else 1}" in log.read_text()), 180)
        noticed = time.time() - hung
        check("rank 1 of 2" in log.read_text(), "the hanging rank was not named")
        before = answered()
        wait_for("a contribution of who is left", lambda: answered() > before, 60)
        spoke = kill_speaker(island, log, answered, as_one_worker) if ulfm else None
    except (Failure, KeyError) as failure:
        rest = [line for line in log.read_text().splitlines() if " steps, loss " not in line]
        raise Failure("\n".join([str(failure), *rest])[-6000:])
    finally:
        island.terminate()
        try:
            island.wait(timeout=30)
        except subprocess.TimeoutExpired:
            island.kill()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    check(process.returncode == 0, f"run failed: {err[-2000:]}")
    check(island.returncode == 0, f"the island did not end when asked to: {island.returncode}\n{log.read_text()[-2000:]}")
    replay = scene.yumoe("replay", run, "--verify", "--json", "--recompute", "8", "--data", scene.folder / "tokens",
                         timeout=240)
    check(replay.returncode == 0, f"replay failed: {replay.stderr}")
    recomputed = json.loads(replay.stdout.strip().splitlines()[-1])
    check(recomputed["recomputed"] == 8 and recomputed["recomputed_different"] == 0, f"recomputed: {recomputed}")
    status = json.loads(scene.yumoe("status", run, "--json").stdout)
    seen = next(p for p in status["participants"] if p["name"] == "island")
    check(not seen["active"], f"an island that is asked to end says so: {seen}")
    check(json.loads(replay.stdout.strip().splitlines()[-1])["state_digest"] == status["state_digest"],
          "replay reached another state")
    print(f"  trained again: {recomputed['recomputed_equal']} the same bits, "
          f"{recomputed['recomputed_within_tolerance']} of an island within the tolerance")
    print(f"  formed again {formed:.1f} s after a kill{' in the same processes' if ulfm else ''}; a hanging rank was given up after {noticed:.1f} s"
          + (f"; without rank 0 the rest was ended after {spoke:.1f} s" if ulfm else ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bin_dir")
    parser.add_argument("--ulfm", help="a yumoe-worker that was built with ULFM")
    arguments = parser.parse_args()
    scene = Scene(arguments.bin_dir, 1)
    try:
        test_island(scene, arguments.ulfm)
    except Failure as failure:
        print(f"FAILED: {failure}")
        return 1
    finally:
        scene.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
