"""Trains the demo's model with two, four and eight workers, once for a few rounds and once for more, and compares
what the further rounds sent over the coordinator's sockets with dense fp32 of the same exchanges. Envelopes,
heartbeats, directives and signatures are in it; what joining costs once has a row of its own. Arguments: folder of
the programs."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROUNDS = (6, 18)


def run(bin_dir, workers, rounds, folder):
    demo = pathlib.Path("launch/examples/demo.toml").read_text()
    shared = demo[:demo.index("[[worker]]")]
    shared = re.sub(r"^(rounds|total_rounds) = .*$", rf"\1 = {rounds}", shared, flags=re.M)
    shared = re.sub(r"^inner_steps_first = .*$", "inner_steps_first = 1\ninner_steps_max = 1", shared, flags=re.M)
    shared = shared.replace('path = "token-set"', f'path = "{os.environ.get("YUMOE_TOKEN_SET", "token-set")}"')
    config = folder / f"{workers}-{rounds}.toml"
    out = folder / f"run-{workers}-{rounds}"
    config.write_text(shared + "".join(f'[[worker]]\nname = "w{i}"\n' for i in range(workers))
                      + '[[validator]]\nname = "judge"\n')
    done = subprocess.run([f"{bin_dir}/yumoe", "run", config, "--out", out, "--json",
                           f"--run.workers_min={workers}",
                           # Whoever comes a little later follows the aggregates and fetches no whole model.
                           "--run.checkpoint_rounds=1000"], capture_output=True, text=True, timeout=570)
    if done.returncode != 0:
        sys.exit(f"the run with {workers} workers failed: {done.stderr[-2000:]}")
    weights = folder / "weights.safetensors"
    subprocess.run([f"{bin_dir}/yumoe", "export", out, "--safetensors", "-o", weights], check=True,
                   capture_output=True)
    return json.loads(done.stdout.strip().splitlines()[-1]), weights.stat().st_size


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
            (few, _), (many, model) = (run(sys.argv[1], workers, rounds, pathlib.Path(folder)) for rounds in ROUNDS)
            rounds = ROUNDS[1] - ROUNDS[0]
            up, down, dense = ((many[key] - few[key]) / rounds
                               for key in ("socket_bytes_in", "socket_bytes_out", "dense_bytes"))
            bars = (200, 50) if workers == 4 else (None, None)
            row(f"{workers} workers: dense fp32 of what they hold / all that came over the socket in a round", up, dense,
                bars[0])
            row(f"{workers} workers: the model in fp32 / all that went over the socket to one participant in a round",
                down / (workers + 1), model, bars[1])
            row(f"{workers} workers: the model in fp32 / what one sends once to join and measure its way",
                (few["socket_bytes_in"] - ROUNDS[0] * up) / workers, model, None)
    sys.exit(0 if met_all else 1)


main()
