"""Trains the demo's model for a few rounds with two, four and eight workers that hold all experts, and compares
what went over the coordinator's sockets with dense fp32 of the same exchanges. Envelopes, heartbeats, directives
and signatures are in it. Arguments: folder of the programs."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROUNDS = 6


def run(bin_dir, workers, folder):
    demo = pathlib.Path("launch/examples/demo.toml").read_text()
    shared = demo[:demo.index("[[worker]]")]
    shared = re.sub(r"^(rounds|total_rounds) = .*$", rf"\1 = {ROUNDS}", shared, flags=re.M)
    shared = re.sub(r"^inner_steps_first = .*$", "inner_steps_first = 1\ninner_steps_max = 1", shared, flags=re.M)
    shared = shared.replace('path = "token-set"', f'path = "{os.environ.get("YUMOE_TOKEN_SET", "token-set")}"')
    config = folder / f"{workers}.toml"
    config.write_text(shared + "".join(f'[[worker]]\nname = "w{i}"\n' for i in range(workers))
                      + '[[validator]]\nname = "judge"\n')
    done = subprocess.run([f"{bin_dir}/yumoe", "run", config, "--out", folder / f"run-{workers}", "--json",
                           f"--run.workers_min={workers}"], capture_output=True, text=True, timeout=570)
    if done.returncode != 0:
        sys.exit(f"the run with {workers} workers failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    met_all = True

    def row(what, ours, other, bar):
        nonlocal met_all
        ratio = other / ours
        met = None if bar is None else ratio >= bar
        met_all = met_all and met is not False
        print(json.dumps({"what": what, "ours": ours, "other": other, "ratio": round(ratio, 2),
                          "bar": None if bar is None else f">= {bar}", "met": met}), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        for workers in (4, 2, 8):
            summary = run(sys.argv[1], workers, pathlib.Path(folder))
            contributions = workers * ROUNDS
            dense = summary["dense_bytes"] / contributions   # one exchange of the whole model in fp32
            up = summary["socket_bytes_in"] / contributions
            down = summary["socket_bytes_out"] / ((workers + 1) * ROUNDS)
            bars = (200, 50) if workers == 4 else (None, None)
            row(f"{workers} workers: bytes up a worker and round, all that came over its socket", up, dense, bars[0])
            row(f"{workers} workers: bytes down a participant and round, all that went over its socket", down, dense,
                bars[1])
    sys.exit(0 if met_all else 1)


main()
