"""The program yumoe against a scripted chain node in a process of its own: what a miner, a validator and a
subnet's owner type, a kill -9 between sending and confirmation, a chain that goes away.
chain.py BIN_DIR --only commands|run"""

import argparse
import csv
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


class Failure(Exception):
    pass


def check(condition, what):
    if not condition:
        raise Failure(what)


class Node:
    """yumoe-scripted-node, one command a line."""

    def __init__(self, bin_dir):
        self.process = subprocess.Popen([bin_dir / "yumoe-scripted-node"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, cwd=HERE.parent.parent)
        self.url = self.process.stdout.readline().strip()

    def do(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if isinstance(answer, dict) and "error" in answer:
            raise Failure(f"node: {line}: {answer['error']}")
        return answer

    def calls(self, name=None):
        names = [call["call_function"] for call in self.do("included")]
        return names if name is None else names.count(name)

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=10)


class Program:
    def __init__(self, bin_dir, home):
        self.file = bin_dir / "yumoe"
        self.environment = dict(os.environ, HOME=str(home))

    def start(self, *arguments):
        return subprocess.Popen([self.file, *map(str, arguments)], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, env=self.environment,
                                stdin=subprocess.DEVNULL)

    def start_run(self, log, *arguments):
        """Its output goes to a file: nobody reads it while it runs."""
        with open(log, "a") as out:
            return subprocess.Popen([self.file, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=out,
                                    env=self.environment, stdin=subprocess.DEVNULL)

    def run(self, *arguments, status=0):
        done = subprocess.run([self.file, *map(str, arguments)], capture_output=True, text=True,
                              env=self.environment, stdin=subprocess.DEVNULL, timeout=120)
        check(done.returncode == status,
              f"yumoe {' '.join(map(str, arguments))} ended with {done.returncode}, not {status}:\n"
              f"{done.stdout}{done.stderr}")
        return done.stdout if status == 0 else done.stderr


def wait_for(what, condition, seconds=30):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return
        time.sleep(0.05)
    raise Failure(f"waited {seconds} s for {what}")


# --- commands -----------------------------------------------------------------------------------------------

SET_WEIGHTS = '{"netuid":2,"dests":[1,2],"weights":[100,200],"version_key":5}'


def reading(yumoe, node, folder):
    line = ["--endpoints", node.url]
    graph = json.loads(yumoe.run("chain", "metagraph", *line, "--netuid", 2, "--json"))
    check(len(graph["neurons"]) == 4 and graph["block"] == 5000, f"metagraph {graph}")
    check(graph["neurons"][1]["stake"] is not None, "a neuron without stake")
    check("validator" not in yumoe.run("chain", "metagraph", *line, "--netuid", 2).splitlines()[0], "table")
    for kind in ("csv", "json", "h5"):
        yumoe.run("chain", "metagraph", *line, "--netuid", 2, "-o", folder / f"m.{kind}")
    rows = list(csv.DictReader(open(folder / "m.csv")))
    check([row["hotkey"] for row in rows] == [n["hotkey"] for n in graph["neurons"]], "csv's hotkeys")
    check(json.load(open(folder / "m.json")) == graph, "the json file is another metagraph")
    import h5py
    with h5py.File(folder / "m.h5") as file:
        stakes = [int(stake) for stake in file["neurons/stake"][:]]
        check(stakes == [n["stake"] for n in graph["neurons"]], f"h5's stakes {stakes}")
        check(file.attrs["block"] in ("5000", b"5000"), "h5's block")
    found = json.loads(yumoe.run("chain", "hyperparameters", *line, "--netuid", 2, "--json"))
    check(found["hyperparameters"]["Tempo"] == 99, f"hyperparameters {found}")
    pools = json.loads(yumoe.run("chain", "pools", *line, "--json"))
    check(any(pool["netuid"] == 2 and pool["formula"] for pool in pools["pools"]), f"pools {pools}")
    status = json.loads(yumoe.run("chain", "status", *line, "--netuid", 2, "--hotkey", "//Alice", "--json"))
    check(status["chain"]["subnet"]["rule"] == "plain", f"status {status}")
    check(status["chain"]["key"]["uid"] is None, f"status {status}")


def refusals(yumoe, node, folder):
    line = ["--endpoints", node.url]

    def says(words, *arguments, status=2):
        told = yumoe.run("chain", *arguments, status=status)
        check(words in told, f"chain {arguments}: '{told.strip()}' does not say '{words}'")

    says("no chain node is named", "metagraph", "--netuid", 2)
    says("no chain node answers at ws://127.0.0.1:9", "metagraph", "--netuid", 2, "--endpoints",
         "ws://127.0.0.1:9", "--connect-timeout-ms", 500, status=1)
    says("of another chain", "metagraph", "--netuid", 2, *line, "--genesis", "0x" + "11" * 32, status=1)
    says("which subnet", "metagraph", *line)
    says("--netuid 70000: must be between 0 and 65535", "metagraph", *line, "--netuid", 70000)
    says("subnet 77 does not exist", "metagraph", *line, "--netuid", 77)
    says("archive node", "metagraph", *line, "--netuid", 2, "--at", "0x" + "22" * 32, status=1)
    says("must end in .h5, .csv or .json", "metagraph", *line, "--netuid", 2, "-o", "x.txt")
    says("did you mean 'SubtensorModule'", "call", "SubtensorModul.set_weights", "--dry-run", *line)
    says("did you mean 'set_weights'", "call", "SubtensorModule.set_weight", "--dry-run", *line)
    says("takes {netuid: ", "call", "SubtensorModule.set_weights", "--args", '{"netuid":2}', "--dry-run", *line)
    says("no wallet is named", "serve", "--netuid", 2, "--ip", "1.2.3.4", "--port", 80, *line)
    says("nowhere", "serve", "--netuid", 2, "--ip", "1.2.3.4", "--port", 80, *line, "--wallet", "nowhere")
    says("NotRegistered", "serve", "--netuid", 2, "--ip", "1.2.3.4", "--port", 80, *line, "--hotkey",
         "//Alice", status=1)
    says("neither an IPv4 nor an IPv6", "serve", "--netuid", 2, "--ip", "here", "--port", 80, *line,
         "--hotkey", "//Alice")
    says("of what", "status")
    says("--yes sends it", "call", "SubtensorModule.set_weights", "--args", SET_WEIGHTS, "--hotkey",
         "//Alice", *line)
    check(node.do("included") == [], "something was sent")


def calling(yumoe, node, folder):
    line = ["--endpoints", node.url, "--hotkey", "//Alice"]
    shown = json.loads(yumoe.run("chain", "call", "SubtensorModule.set_weights", "--args", SET_WEIGHTS,
                                 "--dry-run", "--json", *line))
    check(shown["call"]["call_function"] == "set_weights" and shown["fee"] == "0" and shown["signer"] == ALICE,
          f"dry run {shown}")
    check(shown["call_hex"][2:] in shown["payload"] and shown["call_hex"][2:] in shown["extrinsic"], "bytes")
    text = yumoe.run("chain", "call", "SubtensorModule.set_weights", "--args", SET_WEIGHTS, "--dry-run", *line)
    check("fee        0.000000000 TAO" in text and "payload    0x" in text, text)
    check(node.do("received author_submitAndWatchExtrinsic") == 0, "a dry run sent something")

    # Killed between sending and confirmation: taken up, not sent again.
    arguments = ("chain", "call", "SubtensorModule.set_weights", "--args", SET_WEIGHTS, "--yes", "--json", *line)
    process = yumoe.start(*arguments)
    wait_for("the call to be sent", lambda: node.do("received author_submitAndWatchExtrinsic") == 1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    node.do("produce 2")
    node.do("every 50")
    done = json.loads(yumoe.run(*arguments))
    node.do("every 0")
    check(done["outcome"]["effected"], f"outcome {done['outcome']}")
    check(node.calls("set_weights") == 1, f"in the blocks: {node.calls()}")

    # A refusal by the runtime has its name and says what to do.
    node.do("outcome duplicate uids")
    node.do("every 50")
    other = SET_WEIGHTS.replace("200", "201")
    told = yumoe.run("chain", "call", "SubtensorModule.set_weights", "--args", other, "--yes", *line, status=1)
    node.do("every 0")
    node.do("outcome set_weights good (ed25519)")
    check("SubtensorModule.DuplicateUids" in told, told)


def commands(bin_dir, folder):
    node = Node(bin_dir)
    try:
        yumoe = Program(bin_dir, folder)
        for part in (reading, refusals, calling):
            part(yumoe, node, folder)
            print(f"ok   {part.__name__}", flush=True)
    finally:
        node.close()


# --- a run --------------------------------------------------------------------------------------------------

def run(bin_dir, folder):
    sys.path.insert(0, str(HERE))
    import whole_run
    node = Node(bin_dir)
    process = None
    try:
        yumoe = Program(bin_dir, folder)
        text = folder / "text"
        make_text(text, whole_run)
        file = folder / "run.toml"
        config = whole_run.CONFIG.format(rounds=200, data=folder / "tokens", text=text)
        config = config.replace('name = "judge"', 'name = "judge"\nhotkey = "//Alice"')
        config = config.replace('name = "one"', 'name = "one"\nhotkey = "//Bob"')
        config += f"""
[economy]
block_ms = 500
[ledger]
tempo = 5
[chain]
target = "substrate"
endpoints = ["{node.url}"]
netuid = 2
hotkey = "//Alice"
era_blocks = 16
pause_first_ms = 50
pause_max_ms = 500
"""
        file.write_text(config)
        # The subnet's epochs are ten blocks; the validator and one of the two workers are registered.
        node.do('set Tempo [2] 0x0900')
        node.do('set WeightsSetRateLimit [2] 0x0000000000000000')
        node.do(f"register 2 4 {ALICE}")
        bob = json.loads(yumoe.run("keys", "import", "--uri", "//Bob", "--out", folder / "bob", "--json"))
        node.do(f"register 2 5 {bob['address']}")
        node.do("every 300")
        out, log = folder / "run", folder / "log"

        def round_now():
            return json.loads(yumoe.run("status", out, "--json"))["round"]

        process = yumoe.start_run(log, "run", file, "--out", out, "--json")
        wait_for("weights in a block", lambda: node.calls("set_weights") >= 1, 180)
        node.do("refuse on")  # the chain goes away, the run goes on
        first = round_now()
        wait_for("two more rounds", lambda: round_now() >= first + 2, 120)
        wait_for("the log to say that the chain is away", lambda: "chain: away" in log.read_text(), 60)
        node.do("refuse off")
        before = node.calls("set_weights")
        wait_for("weights after the chain was away", lambda: node.calls("set_weights") > before, 40)
        process.kill()  # and is resumed: nothing is sent twice
        process.wait()
        process = yumoe.start_run(log, "run", file, "--out", out, "--json")
        first = round_now()
        wait_for("two more rounds", lambda: round_now() >= first + 2, 120)
        process.send_signal(signal.SIGINT)
        check(process.wait(timeout=60) == 0, f"the run did not end well:\n{log.read_text()[-3000:]}")
        told = json.loads(yumoe.run("chain", "settle", out, "--config", file, "--wait-s", 100, "--json"))
        check(told["settled_epoch"] > 0 and told["waiting"] == 0, f"settle {told}")
        node.do("every 0")
        status = json.loads(yumoe.run("chain", "status", out, "--json"))
        effected = [s for s in status["settlements"] if s["phase"] == "effected"]
        check(len(effected) == node.calls("set_weights"),
              f"{len(effected)} settlements took effect, {node.calls('set_weights')} calls are in the blocks")
        check(len({s["id"] for s in effected}) == len(effected), "one epoch was settled twice")
        for call in node.do("included"):
            dests = next(a["value"] for a in call["call_args"] if a["name"] == "dests")
            check(dests == [5], f"weights for {dests}: only uid 5 is of this run")
        told = json.loads(yumoe.run("chain", "reconcile", out, "--json"))
        check(told["ledger_epoch"] is not None and told["netuid"] == 2, f"reconcile {told}")
        by_name = {row["name"]: row for row in told["rows"] if row["name"]}
        check(by_name["two"]["differences"][0]["cause"] == "not registered on the chain", f"{by_name}")
        check(by_name["one"]["uid"] == 5 and by_name["one"]["predicted"]["incentive"] > 0, f"{by_name['one']}")
        check(all(d["cause"] for d in by_name["one"]["differences"]), f"{by_name['one']}")
        check("why they differ" in yumoe.run("chain", "reconcile", out), "no table")
        print(f"ok   run: {len(effected)} settlements, {status['readings']} readings of the chain", flush=True)
    finally:
        if process is not None and process.poll() is None:
            process.kill()
        node.close()


def make_text(folder, whole_run):
    draw = random.Random(7)
    for domain in ("one", "two"):
        (folder / domain).mkdir(parents=True)
        lines = [f"{domain} {i}: " + " ".join(draw.choice(whole_run.SENTENCES) for _ in range(3)) + ".\n"
                 for i in range(600)]
        (folder / domain / "text.txt").write_text("\n".join(lines))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin", type=pathlib.Path)
    parser.add_argument("--only", choices=("commands", "run"))
    choice = parser.parse_args()
    failed = False
    for part in (commands, run):
        if choice.only and part.__name__ != choice.only:
            continue
        with tempfile.TemporaryDirectory(prefix="yumoe-chain-") as folder:
            try:
                part(choice.bin.resolve(), pathlib.Path(folder))
            except Failure as failure:
                print(f"FAIL {part.__name__}: {failure}", flush=True)
                for log in pathlib.Path(folder).glob("log"):
                    print(log.read_text()[-4000:], flush=True)
                failed = True
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
