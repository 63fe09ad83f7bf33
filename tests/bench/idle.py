"""Share of the time that workers of the demo spend in inner steps, and idle share of a round with four workers of speeds 1, 2, 4 and 8, throttled for real: real processes that
pause after each step. Ours: steps by placement. Other: the same steps for all.

Busy is the time in inner steps (a throttled worker's pauses count as work: it is a slower machine). A round
lasts from its start to the next one's, so waiting for the slowest, commit, reveal, aggregation and the way
to the next base version are all idle time. Lines of a run go to stderr."""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

import h5py

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "system"))
from scene import SENTENCES  # noqa: E402

SHARES = (0.125, 0.25, 0.5, 1.0)
WARM = 2      # rounds until speeds were seen

CONFIG = """
[run]
rounds = {rounds}
workers_min = 4
checkpoint_rounds = 100
commit_wait_max_ms = 300000
[model]
vocabulary = 320
context = 64
width = 64
layers = 2
heads = 2
key_value_heads = 1
experts = 4
expert_width = 64
[training]
batch_sequences = 4
[placement]
round_s = {round_s}
{steps}
[data]
path = "{folder}/tokens"
sources = ["{folder}/text"]
vocabulary = 320
[transport]
port = 0
heartbeat_interval_ms = 200
"""


def idle_shares(bin_dir, folder, name, rounds, round_s, steps):
    config = folder / f"{name}.toml"
    workers = "".join(f'[[worker]]\nname = "speed-{i}"\nspeed_share = {share}\n' for i, share in enumerate(SHARES))
    config.write_text(CONFIG.format(rounds=rounds, round_s=round_s, steps=steps, folder=folder) + workers)
    run, exported = folder / name, folder / f"{name}.h5"
    subprocess.run([bin_dir / "yumoe", "run", config, "--out", run, "--json"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=900)
    subprocess.run([bin_dir / "yumoe", "export", run, "-o", exported], check=True, stdout=subprocess.DEVNULL)
    if name == "placed":
        shown = subprocess.run([bin_dir / "yumoe", "placement", "show", run], capture_output=True, text=True)
        print(shown.stdout, file=sys.stderr)
    with h5py.File(exported) as file:
        names = []
        file.visit(names.append)
        at = lambda table, column: file[next(n for n in names if n.endswith(f"{table}/{column}"))][()]
        starts = {int(r): int(t) for r, t in zip(at("rounds", "round"), at("rounds", "started_ms"))}
        seconds, made = {}, {}
        for r, uid, s, n in zip(at("contributions", "round"), at("contributions", "uid"),
                                at("contributions", "seconds"), at("contributions", "steps")):
            seconds.setdefault(int(r), []).append(float(s))
            made.setdefault(int(r), {})[int(uid)] = int(n)
    shares = []
    for r in range(WARM + 1, rounds):
        length = (starts[r + 1] - starts[r]) / 1e3
        shares.append(1 - sum(seconds.get(r, [])) / len(SHARES) / length)
        print(f"{name} round {r}: {length:.2f} s, busy {sorted(round(s, 2) for s in seconds.get(r, []))}, "
              f"steps {made.get(r)}, idle {shares[-1]:.3f}", file=sys.stderr)
    return shares


def demo_share(bin_dir, folder):
    """Of the workers' time between the first and the last round, from the summary of the demo itself."""
    done = subprocess.run([bin_dir / "yumoe", "run", "launch/examples/demo.toml", "--out", folder / "demo", "--json",
                           f"--data.path={os.environ.get('YUMOE_TOKEN_SET', folder / 'token-set')}"],
                          capture_output=True, text=True, timeout=1200)
    if done.returncode != 0:
        sys.exit(f"the demo failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    bin_dir = pathlib.Path(sys.argv[1]).absolute()
    round_s = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    folder = pathlib.Path(tempfile.mkdtemp(prefix="yumoe-idle-"))
    try:
        for domain in ("one", "two"):
            (folder / "text" / domain).mkdir(parents=True)
            (folder / "text" / domain / "text.txt").write_text(
                "\n".join(f"{domain} {i}: {SENTENCES[i % 4]}; {SENTENCES[(i * 7 + 1) % 4]}.\n" for i in range(3000)))
        demo = demo_share(bin_dir, folder)
        ours = idle_shares(bin_dir, folder, "placed", WARM + 5, round_s, "inner_steps_max = 1000000")
        # As many as the slowest does in about that time.
        with h5py.File(folder / "placed.h5") as file:
            names = []
            file.visit(names.append)
            table = next(n for n in names if n.endswith("contributions/steps")).rsplit("/", 1)[0]
            steps = [int(s) for s, r in zip(file[table]["steps"][()], file[table]["round"][()]) if r > WARM]
        equal = max(1, min(steps))
        other = idle_shares(bin_dir, folder, "equal", WARM + 3, round_s,
                            f"inner_steps_min = {equal}\ninner_steps_max = {equal}\ninner_steps_first = {equal}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    mine, theirs = statistics.median(ours), statistics.median(other)
    share = demo["compute_share"]
    print(json.dumps({"what": "demo: share of the workers' time in inner steps", "ours": share, "other": 1,
                      "ratio": share, "bar": ">= 0.9", "met": share >= 0.9,
                      "note": f"{demo['elapsed_s']:.0f} s, {demo['eval_bits_per_byte']:.3f} bits a byte, "
                              f"{demo['tokens_per_s']:.0f} tokens/s"}))
    met = mine <= 0.05
    print(json.dumps({"what": "idle share of a round, speeds 1, 2, 4, 8; other: equal shards", "ours": round(mine, 4),
                      "other": round(theirs, 4), "ratio": round(mine / theirs, 4), "bar": "ours <= 0.05", "met": met}))
    sys.exit(0 if met and share >= 0.9 else 1)


if __name__ == "__main__":
    main()
