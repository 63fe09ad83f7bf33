"""Experts of a run on other machines (here: other processes): a run is exported, its experts are served by two
servers, a model evaluated with them loses what it loses alone, also when a server dies; and a worker of a run
trains with the experts that another worker serves. remote_run.py BIN_DIR"""

import argparse
import json
import pathlib
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from scene import Failure, Scene, address_of, check, wait_for


class Server:
    """A process that serves experts, and what callers have to say."""

    def __init__(self, scene, *arguments):
        self.process = scene.start("serve-experts", *arguments, "--address", "127.0.0.1", "--port", 0)
        self.said = []
        for line in self.process.stdout:
            self.said.append(line)
            if "--remote '" in line:
                self.place = line.split("'")[1]
                break
        else:
            raise Failure(f"no server: {self.process.stderr.read()}")

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        _, err = self.process.communicate(timeout=30)
        return self.process.returncode, err


def evaluate(scene, model, *arguments):
    done = scene.yumoe("evaluate", model, "--data", scene.folder / "tokens", "--json", *arguments)
    check(done.returncode == 0, f"evaluate {arguments}: {done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_model(scene):
    """a model evaluated with experts on two servers loses what it loses alone"""
    run = scene.folder / "served"
    done = scene.yumoe("run", scene.config(3), "--out", run, "--json", timeout=120)
    check(done.returncode == 0, f"run: {done.stderr[-1500:]}")
    model = scene.folder / "served.model"
    check(scene.yumoe("export", run, "--model", "-o", model).returncode == 0, "export --model")
    alone = evaluate(scene, run)
    check(alone["experts_here"] == [0, 1, 2, 3] and alone["requests"] == 0, f"alone: {alone}")
    summary = json.loads(done.stdout.strip().splitlines()[-1])
    check(abs(alone["loss"] - summary["eval_loss"]) < 1e-5, f"validators saw {summary['eval_loss']}, not {alone['loss']}")

    key = scene.folder / "server.key"
    one, two = Server(scene, model, "--experts", "1-2", "--key", key), Server(scene, run, "--experts", "2,3")
    check(one.place.startswith("1-2@tcp://127.0.0.1:"), one.place)
    far = evaluate(scene, model, "--remote", one.place, "--remote", two.place)
    check(far["experts_here"] == [0] and far["experts_elsewhere"] == [1, 2, 3], f"far: {far}")
    check(abs(far["loss"] - alone["loss"]) < 1e-5, f"alone {alone['loss']}, with servers {far['loss']}")
    check(far["requests"] > 0 and far["not_answered"] == 0, f"far: {far}")

    status, err = one.end()
    check(status == 0, f"a server that is asked to end: {status} {err}")
    gone = scene.yumoe("evaluate", model, "--data", scene.folder / "tokens", "--remote", one.place, "--wait-ms", 800)
    check(gone.returncode == 2 and "do not answer" in gone.stderr, f"gone: {gone.returncode} {gone.stderr}")
    again = Server(scene, model, "--experts", "1-2", "--key", key)
    check(again.place.split("key=")[1] == one.place.split("key=")[1], "another key after a restart")
    again.end()

    mine = scene.folder / "caller.key"
    refused = scene.yumoe("evaluate", model, "--data", scene.folder / "tokens", "--remote-key", mine, "--remote", one.place,
                          "--wait-ms", 300)
    check("calls experts elsewhere as " in refused.stderr, f"caller's key: {refused.stderr}")
    caller = refused.stderr.split("calls experts elsewhere as ")[1].split()[0]
    closed = Server(scene, model, "--experts", "1-2", "--allow", caller)
    let_in = evaluate(scene, model, "--remote", closed.place, "--remote-key", mine)
    check(let_in["requests"] > 0 and let_in["not_answered"] == 0, f"let in: {let_in}")
    refused = scene.yumoe("evaluate", model, "--data", scene.folder / "tokens", "--remote", closed.place, "--wait-ms", 800)
    check(refused.returncode == 2 and "let this caller in" in refused.stderr, f"not let in: {refused.stderr}")
    closed.end()

    more = scene.yumoe("run", scene.config(3), "--out", scene.folder / "other", "--run.seed=5", "--json", timeout=120)
    check(more.returncode == 0, f"another run: {more.stderr[-1500:]}")
    other = scene.yumoe("evaluate", scene.folder / "other", "--data", scene.folder / "tokens", "--remote", two.place,
                        "--wait-ms", 800)
    check(other.returncode == 2 and "of base version" in other.stderr, f"other version: {other.stderr}")
    two.end()

    for arguments, said in ((("serve-experts", model, "--experts", "0-9"), "the model's are 0 to 3"),
                            (("serve-experts", scene.folder / "none"), "none"),
                            (("serve-experts", model, "--allow", "xyz"), "64 hex digits"),
                            (("evaluate", model, "--data", scene.folder / "tokens", "--remote", "tcp://x"), "EXPERTS@ADDRESS"),
                            (("evaluate", model, "--data", scene.folder / "nowhere"), "nowhere")):
        wrong = scene.yumoe(*arguments)
        check(wrong.returncode == 2 and said in wrong.stderr, f"{arguments}: {wrong.returncode} {wrong.stderr}")
    worker = ("worker", "--coordinator", "tcp://127.0.0.1:1?key=" + 64 * "0", "--hotkey", "//Eve", "--remote", "1@x")
    for arguments, said in ((("island", "-n", "2", *worker), "not for an island"),
                            ((*worker, "--device", "cuda"), "say --device cpu")):
        wrong = subprocess.run([scene.bin / "yumoe-worker", *arguments], capture_output=True, text=True, timeout=60)
        check(wrong.returncode == 2 and said in wrong.stderr, f"{arguments}: {wrong.returncode} {wrong.stderr}")
    damaged = bytearray(model.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    model.write_bytes(damaged)
    wrong = scene.yumoe("evaluate", model, "--data", scene.folder / "tokens")
    check(wrong.returncode != 0 and "damaged" in wrong.stderr, f"damaged: {wrong.stderr}")


def generate(scene, model, *arguments, **more):
    return subprocess.run([scene.bin / "yumoe", "generate", model, "--data", scene.folder / "tokens",
                           *map(str, arguments)], capture_output=True, timeout=120, **more)


def test_generation(scene):
    """a model writes the same text with its experts on servers, with one killed on the way, and goes on with none"""
    run = scene.folder / "writing"
    done = scene.yumoe("run", scene.config(3), "--out", run, "--json", timeout=120)
    check(done.returncode == 0, f"run: {done.stderr[-1500:]}")
    greedy = ("--prompt", "the quick", "--temperature", 0, "--tokens-max")
    alone = generate(scene, run, *greedy, 40)
    check(alone.returncode == 0 and len(alone.stdout) > 1, f"alone: {alone}")
    check(b"tokens/s" in alone.stderr and b" 0 calls to experts elsewhere, 0 not answered" in alone.stderr, f"{alone.stderr}")
    drawn = [generate(scene, run, "--seed", seed, "--top-k", 50, input=b"the quick").stdout for seed in (1, 1, 2)]
    check(drawn[0] == drawn[1] != drawn[2], f"seeds: {drawn}")
    lines = scene.folder / "prompts.txt"
    lines.write_text("the quick\nmoney is\n")
    both = generate(scene, run, "--prompt-file", lines, "--batch", "--temperature", 0, "--tokens-max", 40, "--json")
    texts = [json.loads(line) for line in both.stdout.splitlines()]
    check(len(texts) == 2 and texts[0]["text"] == alone.stdout.decode()[:-1], f"batch: {both}")
    stop = texts[0]["text"].strip()[3:6]
    cut = generate(scene, run, *greedy, 40, "--stop", stop, "--json")
    check(json.loads(cut.stdout)["ended_by"] == "stop text" and stop not in json.loads(cut.stdout)["text"], f"stop: {cut}")

    servers = [Server(scene, run, "--experts", "0-3") for _ in range(2)]
    remote = [argument for server in servers for argument in ("--remote", server.place)]
    far = generate(scene, run, *greedy, 40, *remote)
    check(far.stdout == alone.stdout, f"alone {alone.stdout}, with servers {far.stdout}")
    check(b" 0 not answered" in far.stderr and b" 0 calls" not in far.stderr, f"{far.stderr}")

    longer = 1_000
    expected = generate(scene, run, *greedy, longer).stdout
    for server, kept in zip(servers, (True, False)):
        writing = scene.start("generate", run, "--data", scene.folder / "tokens", *greedy, longer, *remote)
        begun = writing.stdout.read(1)
        server.process.kill()
        server.process.communicate(timeout=30)
        out, err = writing.communicate(timeout=120)
        check(writing.returncode == 0, f"a server was killed: {err}")
        tokens = int(err.split(" tokens,")[0].split()[-1])
        check("end token" in err or tokens == longer, f"a server was killed: {err}")
        if kept:
            check((begun + out).encode() == expected, "another text with a replica's experts")
            check(", 0 not answered" in err, f"a replica was there: {err}")
            remote = ["--remote", servers[1].place]
        elif tokens == longer:
            check("going on without them" in err and "left out of the tokens concerned" in err, f"none was there: {err}")

    for arguments, text, said in ((("--prompt", ""), b"", b"is empty"), ((), b"\xff\xfe", b"is not UTF-8"),
                                  ((), b"word " * 100, b"tokens, the model reads 16"),
                                  (("--prompt-file", "/nowhere"), b"", b"/nowhere"),
                                  (("--prompt", "x", "--temperature", "-1"), b"", b"temperature")):
        wrong = generate(scene, run, *arguments, input=text)
        check(wrong.returncode == 2 and said in wrong.stderr, f"{arguments}: {wrong}")


def test_training(scene):
    """a worker trains with experts that another serves, and goes on without them when that one is killed"""
    run = scene.folder / "training"
    coordinator = scene.start("run", scene.config(100_000), "--out", run, "--evaluation.own_data_allowed=true")
    others = []
    try:
        address = address_of(coordinator)
        for pipe in (coordinator.stdout, coordinator.stderr):
            threading.Thread(target=pipe.read, daemon=True).start()
        serving = scene.worker(address, "serving", "//Alice", "--serve-experts", "all", "--serve-address", "127.0.0.1",
                         "--serve-port", 0)
        others.append(serving)
        place = wait_for("server", lambda: "--remote '" in scene.log_of("serving") and
                         scene.log_of("serving").split("--remote '")[1].split("'")[0], 60)
        calling = scene.worker(address, "calling", "//Bob", "--experts-max", 2, "--remote", place)
        others.append(calling)
        wait_for("round with experts elsewhere", lambda: any(
            " steps, loss " in line and "0 requests" not in line and " 0 calls not answered" in line
            for line in scene.log_of("calling").splitlines()), 60)
        check("gates also over experts 0-3" in scene.log_of("calling"), scene.log_of("calling"))
        serving.kill()
        serving.wait()
        before = scene.log_of("calling").count(" steps, loss ")
        wait_for("round without them", lambda: scene.log_of("calling").count(" steps, loss ") > before + 1 and
                 "gates also over experts of nobody" in scene.log_of("calling"), 60)
        status = json.loads(scene.yumoe("status", run, "--json").stdout)
        bob = next(p for p in status["participants"] if p["name"] == "calling")
        check(bob["steps"] > 0 and bob["active"], f"not counted: {bob}")
        wrong = subprocess.run([scene.bin / "yumoe-worker", "worker", "--coordinator", address, "--hotkey", "//Eve",
                                 "--data", scene.folder / "tokens", "--state", scene.folder / "e", "--remote", "7@" + place.split("@")[1]],
                                capture_output=True, text=True, timeout=60)
        check(wrong.returncode == 2 and "0 to 3" in wrong.stderr, f"wrong place: {wrong.stderr[-500:]}")
    except Failure as failure:
        raise Failure(f"{failure}\n--- calling\n{scene.log_of('calling')[-2500:]}" if others[1:] else str(failure))
    finally:
        for other in others:
            other.kill()
            other.wait()
        coordinator.send_signal(signal.SIGINT)
        coordinator.wait(60)
    replay = scene.yumoe("replay", run, "--recompute", 2, "--data", scene.folder / "tokens", "--json")
    check(replay.returncode == 0, f"replay: {replay.stderr}")
    result = json.loads(replay.stdout.strip().splitlines()[-1])
    check(result["recomputed_different"] == 0, f"replay: {result}")

    audited = scene.start("run", scene.config(100_000), "--out", scene.folder / "audited")
    try:
        address = address_of(audited)
        refused = scene.worker(address, "refused", "//Bob", "--remote", place)
        others.append(refused)
        check(refused.wait(60) != 0 and "own_data_allowed" in scene.log_of("refused"), scene.log_of("refused"))
        # It would fit if nobody called it.
        small = scene.worker(address, "small", "//Dave", "--serve-experts", "all", "--serve-address", "127.0.0.1",
                             "--serve-port", 0, "--memory-mib-max", 600)
        others.append(small)
        check(small.wait(60) != 0 and "for the experts it serves and their callers" in scene.log_of("small"),
              scene.log_of("small"))
    finally:
        audited.send_signal(signal.SIGINT)
        audited.communicate(timeout=60)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bin_dir")
    choice = parser.parse_args()
    failed = False
    for test in (test_model, test_generation, test_training):
        scene = Scene(choice.bin_dir, 1)
        start = time.time()
        try:
            test(scene)
            print(f"ok    {test.__doc__} ({time.time() - start:.0f} s)", flush=True)
        except (Failure, subprocess.TimeoutExpired) as failure:
            failed = True
            print(f"FAILED {test.__doc__}: {failure}\n  again: remote_run.py {choice.bin_dir}")
        scene.close()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
