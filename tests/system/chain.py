"""The program yumoe against a scripted chain node in a process of its own: what a miner, a validator and a
subnet's owner type, on every recorded runtime; a run whose chain goes away and comes back; kill -9 at random
moments of a run that settles. chain.py BIN_DIR --only commands|runtimes|run|kills [--seed N]"""

import argparse
import csv
import gzip
import hashlib
import json
import os
import pathlib
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from scene import CONFIG, Failure, check, wait_for, write_text

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


class Node:
    """yumoe-scripted-node, one command a line."""

    def __init__(self, bin_dir, *runtime):
        self.process = subprocess.Popen([bin_dir / "yumoe-scripted-node", *map(str, runtime)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
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
    says("block 999999 is not there yet: the newest final block is 5000", "metagraph", *line, "--netuid", 2,
         "--at", 999999)
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


def wallets(yumoe, node, folder):
    """Hotkeys as the real tools wrote them sign, whatever protects them; a wrong password says so."""
    samples = ROOT / "tests/conformance/data/wallets"

    def sign(file, password, status=0):
        read_end, write_end = os.pipe()
        os.write(write_end, (password + "\n").encode())
        os.close(write_end)
        done = subprocess.run([yumoe.file, "chain", "call", "SubtensorModule.set_weights", "--args", SET_WEIGHTS,
                               "--endpoints", node.url, "--hotkey", samples / file, "--password-fd", str(read_end),
                               "--dry-run", "--json"], capture_output=True, text=True, env=yumoe.environment,
                              stdin=subprocess.DEVNULL, timeout=60, pass_fds=[read_end])
        os.close(read_end)
        check(done.returncode == status, f"{file}: {done.returncode}: {done.stderr}")
        return json.loads(done.stdout) if status == 0 else done.stderr

    hotkeys = "bittensor-11.3.0/throwaway/hotkeys/"
    plain = sign(hotkeys + "hot_plain", "")
    check(plain["extrinsic"].startswith("0x"), f"{plain}")
    check(sign(hotkeys + "hot_enc", "hot pass")["signer"] == plain["signer"], "another key was opened")
    for file, password in ((hotkeys + "hot_seed", ""), (hotkeys + "hot_ed25519", ""), (hotkeys + "hot_uri_alice", ""),
                           ("bittensor-wallet-4.1.1/throwaway/hotkeys/hot_plain", ""),
                           ("legacy/hot_ansible_vault", "old pass")):
        check(sign(file, password)["extrinsic"].startswith("0x"), file)
    told = sign("legacy/hot_ansible_vault", "wrong", status=2)
    check("password does not open this key" in told, told)


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
    wait_for("the call to be sent", lambda: node.do("received author_submitAndWatchExtrinsic") == 1, 30)
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


class Blocks:
    """Blocks pass while this is open."""

    def __init__(self, node, every_ms):
        self.node, self.every_ms = node, every_ms

    def __enter__(self):
        self.node.do(f"every {self.every_ms}")

    def __exit__(self, *_):
        self.node.do("every 0")


CUSTOM = '{"code":1010,"message":"{\\"invalid\\":{\\"custom\\":%d}}"}'
PAYMENT = '{"code":1010,"message":"{\\"invalid\\":{\\"payment\\":null}}"}'


def registering(yumoe, node, folder):
    """A miner comes to a subnet: every refusal first, then its place."""
    line = ["--endpoints", node.url, "--netuid", 2, "--hotkey", "//Miner", "--pause-blocks", 1]
    pay = ["--coldkey", "//Bob", "--yes"]
    miner = json.loads(yumoe.run("keys", "import", "--uri", "//Miner", "--out", folder / "miner", "--json"))
    address = miner["address"]

    def status():
        return json.loads(yumoe.run("chain", "status", *line[:6], "--json"))["chain"]["key"]

    def refused(words, *arguments):
        told = yumoe.run("chain", *arguments, status=1)
        check(words in told, f"chain {arguments}: '{told.strip()}' does not say '{words}'")

    check(status()["uid"] is None and status()["hotkey"] == address, f"{status()}")
    shown = json.loads(yumoe.run("chain", "register", *line, *pay[:2], "--dry-run", "--json"))
    check(shown["call"]["call_function"] == "burned_register", f"{shown}")
    with Blocks(node, 50):
        node.do("pool 1 " + PAYMENT)
        refused("put more TAO on the paying key", "register", *line, *pay)
        node.do("outcome burned_register already registered")
        refused("SubtensorModule.HotKeyAlreadyRegisteredInSubNet: nothing: it is registered already",
                "register", *line, *pay)
        # The pool is full of registrations: waited out by itself, and paid once.
        node.do("outcome burned_register good")
        node.do("pool 2 " + CUSTOM % 5)
        before = node.calls("burned_register")
        done = json.loads(yumoe.run("chain", "register", *line, *pay, "--json"))
        check(done["outcome"]["effected"], f"{done['outcome']}")
        check("SubtensorModule.NeuronRegistered" in [e["event"] for e in done["outcome"]["events"]], f"{done}")
        check(node.calls("burned_register") == before + 1, "paid more than once")
        check(node.do("placed")[-1]["block"] == done["outcome"]["block"], f"{done['outcome']}")
    node.do(f"register 2 4 {address}")
    check(status()["uid"] == 4 and status()["axon"] == "", f"{status()}")
    check("as uid 4" in yumoe.run("chain", "register", *line, *pay, status=2), "registered twice")


def serving(yumoe, node, folder):
    """It says where it serves: what the chain may refuse, then what others see."""
    line = ["--endpoints", node.url, "--netuid", 2, "--hotkey", "//Miner"]
    where = ["--ip", "1.2.3.4", "--port", 8091, "--yes", "--pause-blocks", 1]
    address = json.loads(yumoe.run("chain", "status", *line, "--json"))["chain"]["key"]["hotkey"]
    with Blocks(node, 50):
        node.do("outcome serve_axon not registered")
        told = yumoe.run("chain", "serve", *line, *where, status=1)
        check("SubtensorModule.HotKeyNotRegisteredInNetwork: register the hotkey" in told, told)
        # A rate limit is waited out by itself.
        node.do("outcome serve_axon rate limit")
        before = node.calls("serve_axon")
        process = yumoe.start("chain", "serve", *line, *where, "--json")
        wait_for("the limit to be met", lambda: node.calls("serve_axon") > before, 30)
        node.do("outcome serve_axon good")
        out, told = process.communicate(timeout=60)
        check(process.returncode == 0, told)
        done = json.loads(out)
        check(done["outcome"]["effected"] and done["call"]["call_function"] == "serve_axon", f"{done}")
        check("SubtensorModule.AxonServed" in [e["event"] for e in done["outcome"]["events"]], f"{done}")
    axon = struct.pack("<QI16sHBB2x", 5000, 1, bytes([4, 3, 2, 1]) + bytes(12), 8091, 4, 4)
    node.do(f'set Axons [2,"{address}"] 0x{axon.hex()}')
    status = json.loads(yumoe.run("chain", "status", *line, "--json"))["chain"]["key"]
    check(status["axon"] == "1.2.3.4:8091" and status["uid"] == 4, f"{status}")
    check("serves     1.2.3.4:8091" in yumoe.run("chain", "status", *line), "the table says nothing of it")
    graph = json.loads(yumoe.run("chain", "metagraph", *line[:4], "--json"))
    check(graph["neurons"][4]["axon"] == {"ip": "1.2.3.4", "port": 8091}, f"{graph['neurons'][4]}")


def other_chain(yumoe, node, folder):
    """A queue belongs to one chain: what is open in it never goes to another."""
    line = ["--endpoints", node.url, "--hotkey", "//Alice"]
    journal = folder / "of-one-chain"
    # Another chain's queue, as if the same file was used there: the entry that names the chain is its first.
    entry = json.dumps({"entry": "chain", "genesis": "11" * 32}).encode()
    journal.write_bytes(len(entry).to_bytes(4, "little") + hashlib.blake2b(entry, digest_size=32).digest() + entry)
    before = len(node.calls())
    told = yumoe.run("chain", "call", "SubtensorModule.set_weights", "--args", SET_WEIGHTS, "--yes", "--journal",
                     journal, *line, status=1)
    check("of the chain with genesis 0x1111" in told, told)
    check(len(node.calls()) == before, "something was sent")


def commands(bin_dir, folder, seed):
    node = Node(bin_dir)
    try:
        yumoe = Program(bin_dir, folder)
        for part in (reading, refusals, wallets, calling, registering, serving, other_chain):
            part(yumoe, node, folder)
            print(f"ok   {part.__name__}", flush=True)
    finally:
        node.close()


# --- every recorded runtime ---------------------------------------------------------------------------------

def read_json(folder, name):
    for ending, read in ((".json", open), (".json.gz", gzip.open)):
        if (folder / (name + ending)).exists():
            with read(folder / (name + ending), "rt") as file:
                return json.load(file)
    raise Failure(f"{folder} has no {name}")


def success_events(folder, name, fields):
    """System.Events of a block whose extrinsic 1 succeeded, by the indices that another decoder found."""
    def event(pallet, name, data):
        found = next(e for e in read_json(folder, "events") if e["pallet"] == pallet and e["event"] == name)
        return bytes([0, 1, 0, 0, 0, found["pallet_index"], found["event_index"]]) + data + b"\0"

    # DispatchInfo: ref_time and proof_size compact, class, pays fee.
    info = bytes([0, 0, 0, 1])
    return "0x" + (bytes([8]) + event("SubtensorModule", name, fields) + event("System", "ExtrinsicSuccess",
                                                                               info)).hex()


def one_runtime(bin_dir, home, folder, spec):
    storage = {item["item"]: item for item in read_json(folder, "storage") if item["pallet"] == "SubtensorModule"}
    calls = {call["call"]: call for call in read_json(folder, "calls") if call["pallet"] == "SubtensorModule"}
    node = Node(bin_dir, folder, spec)
    try:
        yumoe = Program(bin_dir, home)
        line = ["--endpoints", node.url, "--netuid", 2]
        bob = json.loads(yumoe.run("keys", "import", "--uri", "//Bob", "--out", home / f"bob{spec}", "--json"))
        told = yumoe.run("chain", "metagraph", *line, status=2)
        check("subnet 2 does not exist" in told, told)
        node.do("set NetworksAdded [2] 0x01")
        node.do("neurons 0")
        node.do(f"register 2 0 {ALICE}")
        node.do(f"register 2 1 {bob['address']}")
        graph = json.loads(yumoe.run("chain", "metagraph", *line, "--json"))
        check([n["hotkey"] for n in graph["neurons"]] == [ALICE, bob["address"]], f"{spec}: {graph}")
        check(graph["spec_version"] == spec, f"{spec}: {graph['spec_version']}")
        for kind in ("csv", "h5"):
            yumoe.run("chain", "metagraph", *line, "-o", home / f"{spec}.{kind}")
        found = json.loads(yumoe.run("chain", "hyperparameters", *line, "--json"))["hyperparameters"]
        tempo = int.from_bytes(bytes.fromhex(storage["Tempo"]["default_hex"][2:]), "little")
        check(found["Tempo"] == tempo and len(found) > 30, f"{spec}: {found}")
        pools = json.loads(yumoe.run("chain", "pools", *line[:2], "--json"))["pools"]
        check([pool["netuid"] for pool in pools] == [2], f"{spec}: {pools}")
        status = json.loads(yumoe.run("chain", "status", *line, "--hotkey", "//Alice", "--json"))["chain"]
        sealed = "commit_timelocked_weights" in calls
        commits = storage.get("CommitRevealWeightsEnabled", {}).get("default_hex") == "0x01"
        rule = "timelocked commit" if sealed and commits else "hash commit-reveal" if commits else "plain"
        check(status["subnet"]["rule"] == rule and status["subnet"]["tempo"] == tempo, f"{spec}: {status}")
        check(status["key"]["uid"] == 0 and status["runtime"] == f"node-subtensor {spec}", f"{spec}: {status}")
        call = ("chain", "call", "SubtensorModule.set_weights", "--args", SET_WEIGHTS, "--hotkey", "//Alice",
                *line)
        shown = json.loads(yumoe.run(*call, "--dry-run", "--json"))
        check(shown["call_hex"].startswith(calls["set_weights"]["call_prefix"]), f"{spec}: {shown}")
        check(shown["spec_version"] == spec and shown["fee"] is not None, f"{spec}: {shown}")
        told = yumoe.run("chain", "call", "SubtensorModule.no_such_call", "--dry-run", *line, status=2)
        check("has no call 'no_such_call'" in told, told)
        node.do("events " + success_events(folder, "WeightsSet", bytes([2, 0, 0, 0])))
        with Blocks(node, 50):
            done = json.loads(yumoe.run(*call, "--yes", "--json"))
            check(done["outcome"]["effected"], f"{spec}: {done['outcome']}")
            # A transaction of another runtime's kind is refused by its name before anything is sent.
            yumoe.run("chain", "register", *line, "--hotkey", "//Eve", "--coldkey", "//Bob", "--dry-run")
            yumoe.run("chain", "serve", *line, "--hotkey", "//Alice", "--ip", "1.2.3.4", "--port", 80, "--dry-run")
        check(node.calls() == ["set_weights"], f"{spec}: {node.calls()}")
    finally:
        node.close()


def runtimes(bin_dir, folder, seed):
    data = ROOT / "tests/conformance/data/chain/metadata"
    folders = [data / "spec148", data / "spec218"]
    for around in (ROOT.parent, ROOT.parent.parent):
        folders += sorted(around.glob("shared/vectors/chain/metadata/devnet_*"))
    for one in folders:
        spec = int(one.name.rpartition("spec")[2])
        one_runtime(bin_dir, folder, one, spec)
        print(f"ok   runtime {spec}", flush=True)


# --- a run --------------------------------------------------------------------------------------------------

# What makes it pay: steps that do not run out, enough windows to measure on, no doubt about small samples, and no rate
# limit: weights of the first block, in which all register, do not count, and the next would wait for it.
PAYING = """
[scoring]
confidence = 0
[economy]
block_ms = 500
[ledger]
tempo = 5
weights_set_rate_limit = 0
[chain]
target = "substrate"
endpoints = ["{url}"]
netuid = 2
hotkey = "//Alice"
era_blocks = 8
pause_first_ms = 50
pause_max_ms = 500
"""


class SettlingRun:
    """A run of two workers whose validator is //Alice and one of whose workers, //Bob, is on the chain as uid 5."""

    def __init__(self, bin_dir, folder, node):
        self.node, self.yumoe = node, Program(bin_dir, folder)
        self.file, self.out, self.log, self.process = folder / "run.toml", folder / "run", folder / "log", None
        write_text(folder / "text", random.Random(7))
        config = CONFIG.format(rounds=100_000, data=folder / "tokens", text=folder / "text")
        for old, new in (('name = "judge"', 'name = "judge"\nhotkey = "//Alice"'),
                         ('name = "one"', 'name = "one"\nhotkey = "//Bob"'),
                         ("total_steps = 200", "total_steps = 1000000"),
                         ("private_windows = 4", "private_windows = 16")):
            check(old in config, f"the configuration has no {old}")
            config = config.replace(old, new)
        self.file.write_text(config + PAYING.format(url=node.url))
        bob = json.loads(self.yumoe.run("keys", "import", "--uri", "//Bob", "--out", folder / "bob", "--json"))
        # The subnet's epochs are ten blocks.
        node.do("set Tempo [2] 0x0900")
        node.do("set WeightsSetRateLimit [2] 0x0000000000000000")
        node.do(f"register 2 4 {ALICE}")
        node.do(f"register 2 5 {bob['address']}")

    def start(self):
        self.process = self.yumoe.start_run(self.log, "run", self.file, "--out", self.out, "--json")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        check(self.process.wait(timeout=60) == 0, f"the run did not end well:\n{self.log.read_text()[-3000:]}")

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def round(self):
        return json.loads(self.yumoe.run("status", self.out, "--json"))["round"]

    def wait_rounds(self, count):
        first = self.round()
        wait_for(f"{count} more rounds", lambda: self.round() >= first + count, 180)

    def wait_logged(self, words, since=0, seconds=90):
        wait_for(f"the log to say '{words}'", lambda: words in self.log.read_text()[since:], seconds)

    def ledger(self):
        return json.loads(self.yumoe.run("ledger", "show", self.out, "--json"))

    def earned(self, name):
        epochs = self.yumoe.run("ledger", "history", self.out, "--json").splitlines()
        return sum(payout["incentive"] for epoch in epochs for payout in json.loads(epoch)["payouts"]
                   if payout["name"] == name)

    def settlements(self):
        return json.loads(self.yumoe.run("chain", "status", self.out, "--json"))["settlements"]

    def settle(self):
        return json.loads(self.yumoe.run("chain", "settle", self.out, "--config", self.file, "--wait-s", 100,
                                         "--json"))

    def check_once(self):
        """What the queue says took effect is what stands in the node's blocks, each once."""
        settlements = self.settlements()
        effected = [s for s in settlements if s["phase"] == "effected"]
        check(all(s["phase"] in ("effected", "refused") for s in settlements), f"open: {settlements}")
        placed = self.node.do("placed")
        check(sorted(s["block"] for s in effected) == sorted(p["block"] for p in placed),
              f"{[s['block'] for s in effected]} in the queue, {[p['block'] for p in placed]} in the blocks")
        epochs = [s["id"].partition("/epoch ")[2].partition("/")[0] for s in effected]
        check(len(set(epochs)) == len(epochs), f"an epoch was settled twice: {epochs}")
        nonces = [p["nonce"] for p in placed]
        check(nonces == sorted(set(nonces)), f"nonces {nonces}")
        for place in placed:
            dests = next(a["value"] for a in place["call"]["call_args"] if a["name"] == "dests")
            check(dests == [5], f"weights for {dests}: only uid 5 is of this run")
        return settlements, effected


def run(bin_dir, folder, seed):
    node = Node(bin_dir)
    scene = None
    try:
        scene = SettlingRun(bin_dir, folder, node)
        yumoe = scene.yumoe
        node.do("every 300")
        scene.start()
        wait_for("weights in a block", lambda: node.calls("set_weights") >= 1, 180)
        node.do("set Weights [2,4] 0x040500ffff")  # all for uid 5, as was asked

        # A worker may earn nothing in one epoch of a run so small, but not in all.
        wait_for("the run to pay", lambda: scene.earned("one") > 0, 180)

        # The run's blocks are the chain's.
        scene.wait_logged("blocks pass as the chain's do from its block")
        first = scene.ledger()
        check(first["block_source"] == "chain" and first["chain_block"] > 5000, f"{first}")
        wait_for("the chain's blocks to pass in the run",
                 lambda: scene.ledger()["chain_block"] >= first["chain_block"] + 10, 30)
        then = scene.ledger()
        ran, told = then["block"] - first["block"], then["chain_block"] - first["chain_block"]
        check(ran == told, f"{ran} blocks of the run, {told} of the chain")

        # The chain goes away: the run goes on, and its blocks with its own time.
        node.do("refuse on")
        scene.wait_logged("chain: away")
        scene.wait_logged("they pass with the run's own time, one every 500 ms")
        away = scene.ledger()
        scene.wait_rounds(2)
        wait_for("blocks without a chain", lambda: scene.ledger()["block"] >= away["block"] + 4, 30)
        check(scene.ledger()["chain_block"] == away["chain_block"], "a block was told by a chain that is away")

        # It comes back: settlement and blocks too.
        since, before = len(scene.log.read_text()), node.calls("set_weights")
        node.do("refuse off")
        scene.wait_logged("chain: connected", since)
        scene.wait_logged("blocks pass as the chain's do from its block", since)
        wait_for("weights after the chain was away", lambda: node.calls("set_weights") > before, 120)

        scene.kill()  # and is resumed: nothing is sent twice
        scene.start()
        scene.wait_rounds(2)
        scene.stop()
        told = scene.settle()
        check(told["settled_epoch"] > 0 and told["waiting"] == 0, f"settle {told}")
        node.do("every 0")
        _, effected = scene.check_once()
        told = json.loads(yumoe.run("chain", "reconcile", scene.out, "--json"))
        check(told["ledger_epoch"] is not None and told["netuid"] == 2, f"reconcile {told}")
        check(0 < told["weights_of_ledger_epoch"] <= told["ledger_epoch"], f"reconcile {told}")
        status = json.loads(yumoe.run("chain", "status", scene.out, "--json"))
        check(status["in_force_epoch"] == told["weights_of_ledger_epoch"], f"status {status}")
        by_name = {row["name"]: row for row in told["rows"] if row["name"]}
        check(by_name["two"]["differences"][0]["cause"] == "not registered on the chain", f"{by_name}")
        check(by_name["one"]["uid"] == 5 and by_name["one"]["predicted"]["stake"] > 0, f"{by_name['one']}")
        check(by_name["one"]["differences"], "the recorded chain pays nobody, and nothing is said of it")
        check(all(d["cause"] for d in by_name["one"]["differences"]), f"{by_name['one']}")
        check("why they differ" in yumoe.run("chain", "reconcile", scene.out), "no table")
        check_record(scene, effected)
        print(f"ok   run: {len(effected)} settlements", flush=True)
    finally:
        if scene is not None:
            scene.close()
        node.close()


def check_record(scene, effected):
    """Export, audit and replay know of the settlements, the exported file alone too."""
    yumoe, exported = scene.yumoe, scene.out.parent / "run.h5"
    audit = json.loads(yumoe.run("ledger", "audit", scene.out, "--json"))
    check(audit["settlements"]["effected"] == len(effected), f"{audit}")
    yumoe.run("export", scene.out, "-o", exported)
    again = json.loads(yumoe.run("ledger", "audit", exported, "--json"))
    check(again == audit, f"{again} of the file, {audit} of the folder")
    status = json.loads(yumoe.run("chain", "status", exported, "--json"))
    check(status["settlements"] == scene.settlements(), f"{status}")
    told = json.loads(yumoe.run("chain", "reconcile", exported, "--json"))
    check(told == json.loads(yumoe.run("chain", "reconcile", scene.out, "--json")), f"{told}")
    import h5py
    with h5py.File(exported) as file:
        ids = [text.decode() if isinstance(text, bytes) else text for text in file["tables/settlements/id"][:]]
        check(ids == [s["id"] for s in scene.settlements()], f"{ids}")


KILLS = 24


def kills(bin_dir, folder, seed):
    """kill -9 of the coordinator at random moments, with a chain whose pool forgets and whose line breaks."""
    draw = random.Random(seed)
    node = Node(bin_dir)
    scene = None
    try:
        scene = SettlingRun(bin_dir, folder, node)
        node.do("every 300")
        scene.start()
        wait_for("weights in a block", lambda: node.calls("set_weights") >= 1, 180)
        caught = {"waiting": 0, "in flight": 0}
        for number in range(KILLS):
            if number % 2:  # at any moment
                time.sleep(draw.uniform(0.2, 4))
            else:  # soon after a transaction was sent
                sent = node.do("received author_submitAndWatchExtrinsic")
                until = time.monotonic() + 8
                while time.monotonic() < until and node.do("received author_submitAndWatchExtrinsic") == sent:
                    time.sleep(0.01)
                time.sleep(draw.uniform(0, 0.3))
            scene.kill()
            for settlement in scene.settlements():
                if settlement["phase"] in caught:
                    caught[settlement["phase"]] += 1
            fault = draw.choice(("none", "forget", "drop", "pause"))
            if fault == "forget":  # what waits in the pool is lost
                node.do("forget")
            elif fault == "drop":
                node.do("refuse on")
            elif fault == "pause":  # time for more than an era
                time.sleep(3)
            scene.start()
            if fault == "drop":
                time.sleep(draw.uniform(0, 1))
                node.do("refuse off")
        before = node.calls("set_weights")
        wait_for("weights after the last kill", lambda: node.calls("set_weights") > before, 120)
        scene.stop()
        scene.settle()
        node.do("every 0")
        settlements, effected = scene.check_once()
        check(caught["in flight"] >= KILLS // 6, f"only {caught} met an open settlement")
        print(f"ok   kills: {KILLS} kills, {caught['in flight']} of them with a transaction in flight; "
              f"{len(effected)} of {len(settlements)} settlements took effect, each once", flush=True)
        missed_window(scene, node)
    finally:
        if scene is not None:
            scene.close()
        node.close()


def missed_window(scene, node):
    """The chain loses a transaction and its epoch passes: the weights go out in the next, without new ones."""
    node.do("refuse on")  # the run alone makes a newer epoch, and nobody settles it yet
    scene.start()
    wait_for("a newer epoch of the ledger", lambda: scene.ledger()["epochs"] > settled_epoch(scene), 120)
    scene.kill()
    node.do("refuse off")
    node.do("produce 12")
    before = node.calls("set_weights")
    process = scene.yumoe.start("chain", "settle", scene.out, "--config", scene.file, "--json")
    wait_for("weights in the pool", lambda: any(s["phase"] == "in flight" for s in scene.settlements()), 30)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    node.do("forget")
    node.do("produce 30")
    node.do("every 100")
    told = scene.settle()
    node.do("every 0")
    settlements, _ = scene.check_once()
    check(node.calls("set_weights") == before + 1 and told["waiting"] == 0, f"{told}")
    lost, sent = settlements[-2:]
    check(lost["phase"] == "refused" and lost["reason"].startswith("WindowMissed"), f"{lost}")
    check(sent["phase"] == "effected" and "/turn 2/" in sent["id"], f"{sent}")
    print("ok   missed window: the same epoch's weights went out in the chain's next epoch", flush=True)


def settled_epoch(scene):
    return max(int(s["id"].partition("/epoch ")[2].partition("/")[0]) for s in scene.settlements())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin", type=pathlib.Path)
    parser.add_argument("--only", choices=("commands", "runtimes", "run", "kills"))
    parser.add_argument("--seed", type=int, default=1)
    choice = parser.parse_args()
    failed = False
    for part in (commands, runtimes, run, kills):
        if choice.only and part.__name__ != choice.only:
            continue
        with tempfile.TemporaryDirectory(prefix="yumoe-chain-") as folder:
            try:
                part(choice.bin.resolve(), pathlib.Path(folder), choice.seed)
            except Failure as failure:
                print(f"FAIL {part.__name__}: {failure}", flush=True)
                for log in pathlib.Path(folder).glob("log"):
                    print(log.read_text()[-4000:], flush=True)
                failed = True
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
