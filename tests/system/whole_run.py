"""A whole run with real processes: trains, is killed at random moments, is attacked over its socket, is
replayed and exported. Run one seed again: whole_run.py BIN_DIR --seed N --only kills"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from scene import Failure, Scene, Skipped, address_of, check, children_of

def test_run(scene):
    """trains, and its summary, replay and export agree"""
    run = scene.folder / "run"
    done = scene.yumoe("run", scene.config(6), "--out", run, "--json", timeout=240)
    check(done.returncode == 0, f"run failed: {done.stderr[-2000:]}")
    summary = json.loads(done.stdout.strip().splitlines()[-1])
    for key in ("run", "rounds", "tokens", "tokens_per_s", "eval_loss", "eval_bits_per_byte", "bytes_up",
                "bytes_down", "dense_bytes", "compute_share", "state_digest", "workers"):
        check(key in summary, f"summary lacks {key}")
    check(summary["finished"] and summary["rounds"] == 6, f"not finished: {summary}")
    check(summary["eval_loss"] < 5.9, f"did not learn: {summary['eval_loss']}")
    check(all(w["steps"] > 0 for w in summary["workers"]), f"a worker did nothing: {summary['workers']}")
    check(0 < summary["bytes_up"] < summary["dense_bytes"], "no compression")

    replay = scene.yumoe("replay", run, "--verify", "--recompute", "2", "--data", scene.folder / "tokens",
                         "--json")
    check(replay.returncode == 0, f"replay failed: {replay.stderr}")
    result = json.loads(replay.stdout.strip().splitlines()[-1])
    check(result["state_digest"] == summary["state_digest"], "replay reached another state")
    check(result["rounds_verified"] == 6 and result["recomputed_equal"] == 2, f"replay: {result}")

    check_explanations(scene, run)

    exported = scene.folder / "run.h5"
    check(scene.yumoe("export", run, "-o", exported).returncode == 0, "export failed")
    again = scene.yumoe("replay", exported, "--from", "4", "--json")
    check(again.returncode == 0, f"replay of the export failed: {again.stderr}")
    check(json.loads(again.stdout.strip().splitlines()[-1])["rounds_verified"] == 3, "from round 4: 3 rounds")
    weights = scene.folder / "model.safetensors"
    check(scene.yumoe("export", run, "--safetensors", "-o", weights).returncode == 0, "safetensors failed")

    import h5py
    import numpy
    from safetensors.numpy import load_file
    with h5py.File(exported) as file:
        names = []
        file.visit(names.append)
        check(any("rounds" in name for name in names), f"no rounds table in {names[:20]}")
        check(any("scores" in name for name in names), "no scores table")
    tensors = load_file(weights)
    check(tensors["embedding"].shape == (320, 16), "embedding has another shape")
    check(all(numpy.isfinite(t).all() for t in tensors.values()), "weights are not finite")


def check_explanations(scene, run):
    done = scene.yumoe("why", run, "--hotkey", "one", "--json")
    check(done.returncode == 0, f"why failed: {done.stderr}")
    why = json.loads(done.stdout)
    check([f["verdict"] for f in why["filters"]] == ["passed"] * 15, f"filters: {why['filters']}")
    measured = [v["measured"] for v in why["validators"] if v["measured"]]
    check(measured, f"nobody measured it: {why}")
    draw = measured[0]["private"]
    check(draw["low"] <= draw["reduction"] <= draw["high"], f"interval: {draw}")
    # Who is measured expert by expert is drawn anew in each round.
    closer = [v["measured"]["experts"] for worker in ("one", "two") for r in range(1, 7)
              for v in json.loads(scene.yumoe("why", run, "--hotkey", worker, "--round", r, "--json").stdout)["validators"]
              if v["measured"]]
    check(any(closer), f"no expert was measured: {closer}")
    for key in ("weight", "rank", "predicted_alpha", "would_raise", "warning"):
        check(key in why, f"why lacks {key}")
    words = scene.yumoe("why", run, "--hotkey", "one", "--round", "2")
    check(words.returncode == 0 and "presence" in words.stdout and "credit" in words.stdout, f"why: {words.stdout}")
    nobody = scene.yumoe("why", run, "--hotkey", "nobody")
    check(nobody.returncode == 2 and "yumoe status" in nobody.stderr, f"why of nobody: {nobody.stderr}")
    never = scene.yumoe("why", run, "--hotkey", "one", "--round", "999")
    check(never.returncode == 2 and "no part in round 999" in never.stderr, f"why of a round: {never.stderr}")

    same = json.loads(scene.yumoe("rescore", run, "--set", "weight_rule=power", "--json").stdout)
    for worker in same["workers"]:
        check(worker["weight_before"] == worker["weight_after"], f"the same rule gives another weight: {worker}")
        check(worker["change"] == 0, f"the same rule gives another share: {worker}")
    other = scene.yumoe("rescore", run, "--set", "weight_rule=top_k", "--set", "scoring.top_k=1", "--json")
    check(other.returncode == 0, f"rescore failed: {other.stderr}")
    paid = [w for w in json.loads(other.stdout)["workers"] if w["weight_after"] > 0]
    check(len(paid) <= 1, f"top 1 pays {paid}")
    wrong = scene.yumoe("rescore", run, "--set", "weight_pwer=2")
    check(wrong.returncode == 2 and "weight_power" in wrong.stderr, f"rescore: {wrong.stderr}")
    wrong = scene.yumoe("rescore", run, "--set", "weight_power=900")
    check(wrong.returncode == 2 and "between" in wrong.stderr, f"rescore: {wrong.stderr}")


def test_apart(scene):
    """coordinator, workers and validator started apart, each with its own key: workers are paid"""
    config, tokens, run = scene.folder / "apart.toml", scene.folder / "tokens", scene.folder / "apart"
    check(scene.yumoe("keys", "new", "--out", scene.folder / "judge.json").returncode == 0, "no key")
    address = json.loads(scene.yumoe("keys", "show", scene.folder / "judge.json", "--json").stdout)["address"]
    text = scene.config(80).read_text()
    config.write_text(text[:text.index("[[worker]]")] + f"""
[ledger]
tempo = 10
weights_set_rate_limit = 1
[economy]
block_ms = 100
[[validator]]
name = "judge"
address = "{address}"
stake = 1000
""")
    check(scene.yumoe("data", "build", config).returncode == 0, "no token set")
    children = []
    coordinator = scene.start("coordinator", config, "--out", run)
    try:
        joined_at = address_of(coordinator)
        for name in ("near", "far"):
            own = scene.folder / f"{name}.toml"
            own.write_text(f'[data]\npath = "{tokens}"\n[[worker]]\nname = "{name}"\nhotkey = "//{name}"\n'
                           'experts_max = 2\n')
            children.append(scene.start("worker", "--coordinator", joined_at, own, "--state", scene.folder / name))
        children.append(scene.start("validator", "--coordinator", joined_at, "--hotkey", scene.folder / "judge.json",
                                    "--name", "judge", "--data", tokens, "--state", scene.folder / "judge"))
        _, err = coordinator.communicate(timeout=180)
        check(coordinator.returncode == 0, f"coordinator: {err[-1500:]}")
        check("no stake" not in err, f"the validator has no stake: {err[-500:]}")
        for child in children:
            check(child.wait(timeout=30) == 0, f"a participant failed: {child.stderr.read()[-500:]}")
    finally:
        for process in (coordinator, *children):
            if process.poll() is None:
                process.kill()
    history = scene.yumoe("ledger", "history", run, "--json")
    check(history.returncode == 0, f"history: {history.stderr}")
    paid = {}
    for line in history.stdout.splitlines():
        for payout in json.loads(line)["payouts"]:
            paid[payout["name"]] = paid.get(payout["name"], 0) + payout["emission"]
    check(min(paid.get(name, 0) for name in ("near", "far", "judge")) > 0, f"paid: {paid}")
    print(f"  {paid}")


# What is to be seen of each attack of the library in a run of real processes: the filter that refuses it, an
# audit that bans it, or how else it fails. All of them must be paid less than any honest worker besides.
VERDICTS = {
    "zero": "banned", "noise": "banned", "sign_flip": "banned", "scaled": "banned", "zeros_then_noise": "banned",
    "fewer_steps": "banned", "wrong_data": "banned", "label_poison": "banned", "back_door": "banned",
    "lazy_cache": "duplicate", "stale_replay": "duplicate", "copy_jitter": "poor",
    "sybil_split": "shared", "colluding": "shared", "not_finite": "refused", "malformed": "schema",
    "copy_before_reveal": "commitment", "identity_swap": "shard", "late_reveal": "late",
    "withheld_reveal": "unrevealed", "slow_loris": "unrevealed", "uid_inheritance": "returning",
    "replayed_signature": "unheard", "friend_liar": "outvoted", "weight_copier": "outvoted", "cabal": "outvoted",
}
# Many at a time, so that few runs cover all: workers and validators by behaviour, how many of each, and rounds.
TURNS = {
    "trains otherwise": (dict.fromkeys(("zero", "noise", "sign_flip", "scaled", "zeros_then_noise", "fewer_steps",
                                        "wrong_data", "label_poison", "back_door"), 1), {}, 26),
    "copies": ({"stale_replay": 1, "lazy_cache": 1, "copy_jitter": 1, "sybil_split": 2, "colluding": 2,
                "accomplice": 1, "copy_before_reveal": 1, "identity_swap": 1, "not_finite": 1}, {}, 16),
    "sends otherwise": ({"malformed": 1, "late_reveal": 1, "withheld_reveal": 1, "slow_loris": 1,
                         "uid_inheritance": 1, "replayed_signature": 1, "friend": 1},
                        {"friend_liar": 1, "weight_copier": 1, "cabal": 2}, 16),
}


def test_attacks(scene):
    """every attack of the library in real processes: caught as its gate says, and paid less than honest work"""
    listed = json.loads(scene.yumoe("simulate", "--list", "--json").stdout)
    check({a["attack"] for a in listed} == set(VERDICTS), "the library has attacks that no real process plays")
    played = {name for workers, validators, _ in TURNS.values() for name in (*workers, *validators)}
    check(set(VERDICTS) <= played, f"not played: {set(VERDICTS) - played}")
    for number, (title, (workers, validators, rounds)) in enumerate(TURNS.items()):
        start = time.time()
        run = scene.folder / f"attacked-{number}"
        log = play_attacks(scene, run, workers, validators, rounds)
        seen = check_attacks(scene, run, log, workers, validators)
        replay = scene.yumoe("replay", run, "--verify", "--json")
        check(replay.returncode == 0, f"replay failed: {replay.stderr}")
        print(f"  who {title} ({time.time() - start:.0f} s): {seen}", flush=True)


def play_attacks(scene, run, workers, validators, rounds):
    """Runs two honest workers and an honest validator with most of the stake beside attackers; the coordinator's log."""
    pool = scene.folder / f"pool-{run.name}"
    pool.mkdir()
    attackers = [(f"{name}-{i}", name) for name, count in workers.items() for i in range(count)]
    liars = [(f"{name}-{i}", name) for name, count in validators.items() for i in range(count)]
    config = scene.config(rounds)
    text = config.read_text().replace('name = "judge"', 'name = "judge"\nhotkey = "//judge"')
    for name, _ in liars:
        text += f'[[validator]]\nname = "{name}"\nhotkey = "//{name}"\nstake = 200\n'
    config.write_text(text)
    honest = [("one", ""), ("two", ""), ("three", "")]
    log_path = scene.folder / f"log-{run.name}"
    processes = []
    with open(log_path, "w") as log:
        coordinator = subprocess.Popen(
            [scene.bin / "yumoe", "coordinator", config, "--out", run, "--run.audit_share=1",
             f"--run.workers_min={len(honest) + len(attackers) - 1}", "--run.commit_wait_max_ms=6000",
             "--run.commit_wait_min_ms=1000", "--run.reveal_wait_max_ms=1000", "--run.scoring=blocking",
             # So small a model's honest updates have up to 40 % in common.
             "--evaluation.private_windows=32", "--scoring.duplicate_share=0.5"],
            stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            address = address_of(coordinator)

            def join(role, name, behaviour):
                command = [scene.bin / "yumoe-worker", role, "--coordinator", address, "--hotkey", f"//{name}",
                           "--name", name, "--data", scene.folder / "tokens", "--state", scene.folder / run.name / name,
                           "--heartbeat-interval-ms", "100"]
                if behaviour:
                    command += ["--behaviour", behaviour, "--pool", pool]
                own_log = open(scene.folder / run.name / f"{name}.log", "w")
                processes.append(subprocess.Popen(command, stdout=own_log, stderr=own_log))

            (scene.folder / run.name).mkdir(exist_ok=True)
            join("validator", "judge", "")
            for name, behaviour in liars:
                join("validator", name, behaviour)
            for name, behaviour in honest + attackers:
                join("worker", name, behaviour)
            deadline = time.time() + 200
            while coordinator.poll() is None and time.time() < deadline:
                time.sleep(1)
                if "weight_copier" in validators:  # what everybody can see on a chain
                    status = scene.yumoe("status", run, "--json")
                    if status.returncode == 0:
                        rows = [f"{p['uid']} {p['weight']}" for p in json.loads(status.stdout)["participants"]]
                        (pool / "weights").write_text("\n".join(rows))
            check(coordinator.poll() == 0, f"the run did not finish: {log_path.read_text()[-1500:]}")
        finally:
            for process in [*processes, coordinator]:
                process.kill()
                process.wait()
    return log_path.read_text()


def check_attacks(scene, run, log, workers, validators):
    """Every attacker failed as VERDICTS says and is paid less than the least of the honest; what was seen, in words."""
    status = json.loads(scene.yumoe("status", run, "--json").stdout)["participants"]
    honest = {p["name"]: p["weight"] for p in status if p["name"] in ("one", "two", "three")}
    check(len(honest) == 3 and min(honest.values()) > 0, f"an honest worker is not paid: {status}")
    contributions = contributions_of(scene, run)
    refused = {p["name"]: {row["filter"] for row in contributions if row["uid"] == p["uid"] and row["filter"]}
               for p in status}
    for name in honest:
        check(not refused[name], f"honest {name} was refused: {refused[name]}")
    seen = []
    for behaviour in workers:
        own = [p for p in status if p["name"].rsplit("-", 1)[0] == behaviour]
        if behaviour not in VERDICTS:
            continue
        filters = set().union(*(refused[p["name"]] for p in own))
        weight = sum(p["weight"] for p in own)
        rows = [row for row in contributions if row["uid"] in {p["uid"] for p in own}]
        what = f"{behaviour}: weight {weight}, {len(rows)} contributions, filters {sorted(filters)}"
        check(weight < min(honest.values()), f"pays: {what}, honest {honest}")
        why = json.loads(scene.yumoe("why", run, "--hotkey", own[0]["name"], "--json").stdout)
        verdict = VERDICTS[behaviour]
        fails = {
            # Banned by an audit, or measured to be worth nothing: a few hundredths of a per mille are rounding.
            "banned": 1000 * weight <= min(honest.values()) and (why["warning"] or filters),
            "poor": weight < 0.5 * min(honest.values()),
            "shared": "duplicate" in filters and was_shared(scene, run, own[0]["name"], rows),
            "refused": weight == 0 and ("trained again" in why["warning"] or filters),
            "schema": {"schema", "size"} <= filters,
            "late": rows and not any(row["in_time"] for row in rows),
            "unrevealed": weight == 0 and len(rows) <= 3,
            "returning": weight == 0 and len(own) >= 2,
            "unheard": weight == 0 and not rows and "came before: replayed" in log,
        }.get(verdict, verdict in filters)
        check(fails, f"not {verdict}: {what}, {why['warning']}")
        seen.append(f"{behaviour} {verdict}")
    agreement = {p["name"]: p["agreement"] for p in status if p["role"] == "validator"}
    for behaviour in validators:
        liars = [name for name in agreement if name.rsplit("-", 1)[0] == behaviour]
        check(all(agreement[name] < agreement["judge"] for name in liars), f"{behaviour} agrees: {agreement}")
        friends = [p["weight"] for p in status if p["name"].startswith("friend-")]
        check(friends and max(friends) == 0, f"friends of {behaviour} are paid: {status}")
        seen.append(f"{behaviour} {VERDICTS[behaviour]}")
    return ", ".join(seen)


def was_shared(scene, run, name, rows):
    for row in rows:
        why = scene.yumoe("why", run, "--hotkey", name, "--round", str(row["round"]), "--json")
        if why.returncode == 0 and json.loads(why.stdout)["shared"]:
            return True
    return False


def test_tampered_record(scene):
    """a replay names the round whose contribution was changed"""
    run = scene.folder / "run"
    import sqlite3
    copy = scene.folder / "tampered"
    shutil.copytree(run, copy)
    db = sqlite3.connect(copy / "journal.sqlite")
    tables = [name for (name,) in db.execute("select name from sqlite_master where type = 'table'")]
    table = next(name for name in tables if "blob" in name)
    columns = [row[1] for row in db.execute(f"pragma table_info({table})")]
    column = "bytes" if "bytes" in columns else next(c for c in columns if "byte" in c or "data" in c)
    rowid, bytes_ = db.execute(f"select rowid, {column} from {table} order by rowid limit 1").fetchone()
    changed = bytearray(bytes_)
    changed[len(changed) // 2] ^= 1
    db.execute(f"update {table} set {column} = ? where rowid = ?", (bytes(changed), rowid))
    db.commit()
    db.close()
    replay = scene.yumoe("replay", copy, "--verify")
    check(replay.returncode != 0, "a changed contribution was not noticed")
    check("digest" in replay.stderr or "corrupt" in replay.stderr or "record" in replay.stderr,
          f"unclear error: {replay.stderr}")


def test_kills(scene, kills=50):
    """50 kills at random moments lose nothing: the run goes on and every round replays"""
    run = scene.folder / "killed"
    config = scene.config(100_000)
    killed = coordinator_kills = 0
    deadline = time.time() + 300
    process = scene.start("run", config, "--out", run, "--json")
    while killed < kills and time.time() < deadline:
        time.sleep(scene.random.uniform(0.05, 1.2))
        if process.poll() is not None:
            check(False, f"run ended by itself: {process.stderr.read()[-2000:]}")
        children = children_of(process.pid)
        if scene.random.random() < 0.2 or not children:
            process.kill()
            process.wait()
            coordinator_kills += 1
            process = scene.start("run", config, "--out", run, "--json")
        else:
            try:
                os.kill(scene.random.choice(children), signal.SIGKILL)
            except ProcessLookupError:
                continue
        killed += 1
    check(killed == kills, f"only {killed} kills in time")
    before = json.loads(scene.yumoe("status", run, "--json").stdout)["version"]
    # Everybody is back: rounds go on.
    while time.time() < deadline:
        time.sleep(1)
        if json.loads(scene.yumoe("status", run, "--json").stdout)["version"] >= before + 3:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    check(process.returncode == 0, f"run failed after {killed} kills: {err[-3000:]}")
    status = json.loads(scene.yumoe("status", run, "--json").stdout)
    check(status["version"] >= before + 3, f"no round after the kills: {status['version']} from {before}")
    replay = scene.yumoe("replay", run, "--verify", "--json")
    check(replay.returncode == 0, f"replay failed: {replay.stderr}")
    result = json.loads(replay.stdout.strip().splitlines()[-1])
    check(result["rounds_verified"] == status["version"], f"verified {result['rounds_verified']}")
    check(result["state_digest"] == status["state_digest"], "replay reached another state")
    print(f"  {killed} kills, {coordinator_kills} of the coordinator, {status['version']} rounds")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_calls(scene, kills=12):
    """signed calls on the ledger are taken exactly once, whenever the coordinator is killed"""
    run = scene.folder / "calls"
    keys = {}
    for name in ("owner", "nominator", "friend"):
        made = scene.yumoe("keys", "new", "--out", scene.folder / name, "--json")
        check(made.returncode == 0, f"keys new: {made.stderr}")
        keys[name] = json.loads(made.stdout)["address"]
    config = scene.config(100_000)
    config.write_text(config.read_text() + f"""
[ledger]
tempo = 20
weights_set_rate_limit = 2
[economy]
block_ms = 100
owner = "{keys["owner"]}"
balances = ["{keys["nominator"]}=100"]
subnets = ["vision lock=1500 stake=100 miners=2"]
""")
    port = free_port()

    def start():
        return scene.start("run", config, "--out", run, "--json", f"--transport.port={port}")

    def ledger(command, *arguments, key="nominator", place=run):
        return scene.yumoe("ledger", command, place, *arguments, "--key", scene.folder / key, "--json")

    process = start()
    deadline = time.time() + 120
    joined = []
    while time.time() < deadline and "judge" not in joined:
        time.sleep(0.5)
        status = scene.yumoe("ledger", "balances", run, "--json")
        joined = [row["name"] for row in json.loads(status.stdout)["accounts"]] if status.returncode == 0 else []
    check("judge" in joined, f"the validator did not join: {joined}")

    # One transfer a turn over the socket, the coordinator killed somewhere around it.
    address = (run / "address").read_text().strip()
    amount, taken = 1_000_000, 0
    for _ in range(kills):
        asking = scene.start("ledger", "transfer", address, "--to", keys["friend"], "--tao", "0.001",
                             "--key", scene.folder / "nominator", "--json")
        time.sleep(scene.random.uniform(0.0, 0.15))
        process.kill()
        process.wait()
        process = start()
        out, err = asking.communicate(timeout=60)
        check(asking.returncode == 0, f"a call did not survive its coordinator: {err}")
        answer = json.loads(out)
        check(answer["call"] == taken, f"call {answer['call']}, expected {taken}")
        taken += 1
        check(answer["free_rao"] == 100_000_000_000 - taken * amount, f"paid twice or not: {answer}")

    hotkey = next(row["account"]
                  for row in json.loads(scene.yumoe("ledger", "balances", run, "--json").stdout)["accounts"]
                  if row["name"] == "judge")
    done = ledger("stake", "--hotkey", hotkey, "--tao", "10", place=address)
    check(done.returncode == 0, f"stake: {done.stderr}")
    check(json.loads(done.stdout)["live"], "the coordinator did not answer")
    done = ledger("unstake", "--hotkey", hotkey, "--alpha", "2", "--limit", "0.01", place=address)
    check(done.returncode == 0, f"unstake by address: {done.stderr}")
    done = ledger("set", "kappa=0.6", key="nominator")
    check(done.returncode == 1 and "NotSubnetOwner" in done.stderr, f"set by another: {done.stderr}")
    for _ in range(60):  # not within ten blocks of the next epoch
        done = ledger("set", "kappa=0.6", key="owner")
        if "AdminActionProhibited" not in done.stderr:
            break
        time.sleep(0.1)
    check(done.returncode == 0, f"set by the owner: {done.stderr}")

    process.send_signal(signal.SIGINT)
    check(process.wait(timeout=60) == 0, "the run did not stop in order")
    done = ledger("swap", "--hotkey", "judge", "--alpha", "1", "--to-netuid", "2")
    check(done.returncode == 0 and not json.loads(done.stdout)["live"], f"stopped run: {done.stderr}")
    taken += 4
    process = start()  # goes on after a call that no coordinator saw
    before = json.loads(scene.yumoe("status", run, "--json").stdout)["version"]
    while time.time() < deadline + 120:
        time.sleep(0.5)
        if json.loads(scene.yumoe("status", run, "--json").stdout)["version"] >= before + 4:
            break
    done = ledger("transfer", "--to", keys["friend"], "--tao", "0.001")
    check(done.returncode == 0, f"after the restart: {done.stderr}")
    taken += 1
    process.send_signal(signal.SIGINT)
    check(process.wait(timeout=60) == 0, "the run did not stop in order")
    audit = scene.yumoe("ledger", "audit", run, "--json")
    check(audit.returncode == 0, f"audit: {audit.stderr}")
    found = json.loads(audit.stdout)
    check(found["calls"] == taken, f"{found['calls']} calls recorded, {taken} were answered")
    check(found["snapshots"] >= 1 and found["broken"] is None, f"audit: {found}")
    shown = json.loads(scene.yumoe("ledger", "show", run, "--json").stdout)
    check(not [r for r in shown["refusals"] if r["operation"] != "CommitTimelocked" and "Stake" in r["operation"]],
          f"refused: {shown['refusals']}")
    check({row["name"] for row in shown["subnets"]} == {"run", "vision"}, f"subnets: {shown['subnets']}")
    check(shown["subnets"][1]["tao_emission"] > 0, "the other subnet gets nothing")
    replay = scene.yumoe("replay", run, "--verify", "--json")
    check(replay.returncode == 0, f"replay failed: {replay.stderr}")
    print(f"  {taken} calls, {kills} kills of the coordinator, {found['snapshots']} snapshots equal")


def contributions_of(scene, run):
    """Rows of the exported contributions table, as dictionaries of numbers."""
    import h5py
    exported = scene.folder / "late.h5"
    exported.unlink(missing_ok=True)
    done = scene.yumoe("export", run, "-o", exported)
    check(done.returncode == 0, f"export failed: {done.stderr}")
    with h5py.File(exported) as file:
        found = []
        file.visititems(lambda name, item: found.append(name) if name.endswith("contributions/in_time") else None)
        check(found, "no contributions table")
        table = file[found[0].rsplit("/", 1)[0]]
        filters = [f.decode() for f in table["filter"][()]]
        return [dict(zip(("round", "uid", "in_time", "filter"), row))
                for row in zip(table["round"][()], table["uid"][()], table["in_time"][()], filters)]


def test_late(scene):
    """a worker that was held up past the deadline still delivers, and it counts as late"""
    run = scene.folder / "late"
    process = scene.start("run", scene.config(100_000), "--out", run, "--json")
    deadline = time.time() + 120
    late = []
    try:
        while time.time() < deadline and not late:
            time.sleep(1)
            status = scene.yumoe("status", run, "--json")
            if status.returncode != 0 or json.loads(status.stdout)["version"] < 8:
                continue
            workers = [pid for pid in children_of(process.pid)
                       if b"\0worker\0" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()]
            if not workers:
                continue
            # Longer than the shortest deadline (2 s), shorter than the lease (3 s).
            os.kill(workers[-1], signal.SIGSTOP)
            time.sleep(2.3)
            os.kill(workers[-1], signal.SIGCONT)
            time.sleep(2)
            late = [row for row in contributions_of(scene, run) if row["in_time"] == 0]
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    check(late, f"no late contribution arrived: {err[-1000:]}")
    replay = scene.yumoe("replay", run, "--verify", "--json")
    check(replay.returncode == 0, f"replay failed: {replay.stderr}")
    print(f"  {len(late)} late")


def test_hostile(scene):
    """strangers with garbage, wrong keys and wrong folders get named errors and change nothing"""
    run = scene.folder / "hostile"
    config = scene.config(6)
    process = scene.start("run", config, "--out", run)
    address = address_of(process)
    host, port = re.match(r"tcp://([^:]+):(\d+)\?", address).groups()
    for size in (1, 10, 1000, 1 << 20):
        with socket.create_connection((host, int(port)), timeout=5) as stranger:
            try:
                stranger.sendall(scene.random.randbytes(size))
            except (ConnectionResetError, BrokenPipeError):
                pass  # thrown out before it had said it all
    wrong = address[:-64] + "0" * 63 + "1"
    worker = subprocess.run([scene.bin / "yumoe-worker", "worker", "--coordinator", "nonsense", "--hotkey",
                             "//Mallory"], capture_output=True, text=True, timeout=30)
    check(worker.returncode == 2 and "tcp://HOST:PORT" in worker.stderr, f"address: {worker.stderr}")
    began = time.time()
    stranger = subprocess.Popen([scene.bin / "yumoe-worker", "worker", "--coordinator", wrong, "--hotkey",
                                 "//Mallory", "--state", scene.folder / "mallory"],
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    taken = scene.yumoe("run", config, "--out", scene.folder / "other", f"--transport.port={port}")
    check(taken.returncode == 1 and "already in use" in taken.stderr, f"port: {taken.stderr[-500:]}")
    locked = scene.yumoe("run", config, "--out", run)
    check(locked.returncode != 0, "two coordinators opened one run")
    out, err = process.communicate(timeout=240)
    time.sleep(max(0, began + 8 - time.time()))
    stranger.kill()
    said = stranger.communicate()[1]
    check("is the key its own" in said, f"a worker with a wrong key is not told: {said[-500:]}")
    check(process.returncode == 0, f"run failed: {err[-2000:]}")
    other = scene.yumoe("run", config, "--out", run, "--model.width=32", "--model.heads=2")
    check(other.returncode == 2 and "another shared configuration" in other.stderr, f"resume: {other.stderr[-500:]}")
    missing = scene.yumoe("replay", scene.folder / "nowhere")
    check(missing.returncode == 2 and "does not exist" in missing.stderr, f"missing: {missing.stderr}")


def version_of(scene, run):
    status = scene.yumoe("status", run, "--json")
    return json.loads(status.stdout)["version"] if status.returncode == 0 else 0


def wait_for_version(scene, run, version, process, seconds=90):
    deadline = time.time() + seconds
    while time.time() < deadline and process.poll() is None:
        if version_of(scene, run) >= version:
            return
        time.sleep(0.5)
    process.kill()
    check(False, f"version {version} was not reached: {process.communicate()[1][-1500:]}")


def finish(process):
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=60)


def check_replay(scene, run):
    replay = scene.yumoe("replay", run, "--verify", "--json")
    check(replay.returncode == 0, f"replay failed: {replay.stderr}")
    return json.loads(replay.stdout.strip().splitlines()[-1])


def test_disk_full(scene):
    """a full disk ends the run with its name; with space again it goes on and replays whole"""
    small = scene.folder / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6M", "none", small], capture_output=True,
                             text=True)
    if mounted.returncode != 0:
        raise Skipped(f"no small file system: {mounted.stderr.strip()}")
    try:
        run = small / "run"
        process = scene.start("run", scene.config(100_000), "--out", run, "--json")
        out, err = process.communicate(timeout=120)
        check(process.returncode == 1 and "no space left on device" in err, f"full disk: {err[-800:]}")
        subprocess.run(["mount", "-o", "remount,size=64M", small], check=True)
        reached = version_of(scene, run)
        process = scene.start("run", scene.config(100_000), "--out", run, "--json")
        wait_for_version(scene, run, reached + 3, process)
        out, err = finish(process)
        check(process.returncode == 0, f"did not go on: {err[-1500:]}")
        result = check_replay(scene, run)
        print(f"  full after round {reached}, {result['rounds_verified']} rounds replayed")
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_read_only(scene):
    """a folder that can not be written is named before anything starts"""
    sealed = scene.folder / "sealed"
    sealed.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", sealed], capture_output=True).returncode:
        raise Skipped("no read-only file system can be mounted here")
    try:
        done = scene.yumoe("run", scene.config(6), "--out", sealed / "run", timeout=60)
        check(done.returncode in (1, 2) and str(sealed) in done.stderr and "ead-only" in done.stderr,
              f"read-only: {done.returncode} {done.stderr[-500:]}")
    finally:
        subprocess.run(["umount", "-l", sealed], check=True)


def test_slow_reader(scene):
    """a validator that stops reading holds nobody up, and is taken back when it reads again"""
    run = scene.folder / "slow"
    process = scene.start("run", scene.config(100_000), "--out", run, "--json")
    wait_for_version(scene, run, 3, process)
    judge = next(pid for pid in children_of(process.pid)
                 if b"\0validator\0" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(judge, signal.SIGSTOP)
    wait_for_version(scene, run, version_of(scene, run) + 8, process)
    os.kill(judge, signal.SIGCONT)
    before = json.loads(scene.yumoe("status", run, "--json").stdout)["eval_version"]
    deadline = time.time() + 60
    while time.time() < deadline:
        time.sleep(0.5)
        if json.loads(scene.yumoe("status", run, "--json").stdout)["eval_version"] > before:
            break
    out, err = finish(process)
    check(process.returncode == 0, f"run failed: {err[-1500:]}")
    after = json.loads(scene.yumoe("status", run, "--json").stdout)["eval_version"]
    check(after > before, f"the validator measured nothing after version {before}")
    check_replay(scene, run)


def test_damaged_checkpoint(scene):
    """a damaged checkpoint is named and the one before is used"""
    run = scene.folder / "slow"
    newest = sorted((run / "checkpoints").glob("*.h5"))[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    reached = version_of(scene, run)
    process = scene.start("run", scene.config(100_000), "--out", run, "--json")
    wait_for_version(scene, run, reached + 3, process)
    out, err = finish(process)
    check(process.returncode == 0, f"did not go on: {err[-1500:]}")
    check(newest.name in err, f"the damaged checkpoint is not named: {err[-1500:]}")
    check_replay(scene, run)


def test_damaged_journal(scene):
    """a journal changed in its middle is named; the good part is used, the whole kept beside"""
    import sqlite3
    run = scene.folder / "slow"
    db = sqlite3.connect(run / "journal.sqlite")
    (middle,) = db.execute("select max(sequence) / 2 from record").fetchone()
    (payload,) = db.execute("select payload from record where sequence = ?", (middle,)).fetchone()
    changed = bytearray(payload)
    changed[-1] ^= 1
    db.execute("update record set payload = ? where sequence = ?", (bytes(changed), middle))
    db.commit()
    db.close()
    replay = scene.yumoe("replay", run, "--verify")
    check(replay.returncode != 0 and str(middle) in replay.stderr, f"replay: {replay.stderr[-800:]}")
    reached = version_of(scene, run)
    process = scene.start("run", scene.config(100_000), "--out", run, "--json")
    wait_for_version(scene, run, reached + 3, process)
    out, err = finish(process)
    check(process.returncode == 0, f"did not go on: {err[-1500:]}")
    kept = re.search(rf"records 1 to {middle - 1} are kept; the damaged file is (\S+)", err)
    check(kept and pathlib.Path(kept.group(1)).exists(), f"journal: {err[-1500:]}")
    check_replay(scene, run)


def test_clock_skew(scene):
    """clocks hours apart, and a coordinator whose clock goes back, change nothing"""
    library = next(pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        raise Skipped("faketime is not installed (launch/setup installs it)")
    run = scene.folder / "skew"

    def start(shift, program, *arguments):
        # The wall clock only: no machine's monotonic clock jumps.
        env = dict(os.environ, LD_PRELOAD=str(library), FAKETIME=shift, FAKETIME_DONT_FAKE_MONOTONIC="1",
                   DONT_FAKE_MONOTONIC="1")
        out = scene.folder / f"out-{time.monotonic_ns()}"
        process = subprocess.Popen([scene.bin / program, *map(str, arguments)], stdout=open(out, "w"),
                                   stderr=subprocess.PIPE, text=True, env=env)
        process.out = out
        return process

    def coordinator(shift):
        return start(shift, "yumoe", "coordinator", scene.config(100_000), "--out", run, "--transport.port=0")

    def join(kind, name, shift, address):
        return start(shift, "yumoe-worker", kind, "--coordinator", address, "--hotkey", f"//{name}", "--name", name,
                     "--data", scene.folder / "tokens", "--state", scene.folder / "skew-state" / name)

    def address_in(process):
        deadline = time.time() + 60
        while time.time() < deadline and process.poll() is None:
            found = re.search(r"join at (\S+)|(tcp://\S+key=\w+)", process.out.read_text())
            if found:
                return found.group(1) or found.group(2)
            time.sleep(0.1)
        process.kill()
        check(False, f"no address was printed: {process.communicate()[1][-800:]}")

    errors = []
    first = coordinator("+0")
    address = address_in(first)
    others = [join("worker", "one", "+3h", address), join("worker", "two", "-26h", address),
              join("validator", "judge", "+1h", address)]
    try:
        wait_for_version(scene, run, 2, first)
        finish(first)
        for other in others:
            other.send_signal(signal.SIGINT)
            other.wait(30)
        second = coordinator("-2h")
        address = address_in(second)
        others = [join("worker", "one", "-5h", address), join("worker", "two", "+0", address),
                  join("validator", "judge", "+1h", address)]
        wait_for_version(scene, run, version_of(scene, run) + 3, second)
        status = json.loads(scene.yumoe("status", run, "--json").stdout)
        check(sum(p["active"] for p in status["participants"]) == 3, f"not all are back: {status}")
        out, err = finish(second)
        check(second.returncode == 0, f"did not end well: {err[-1500:]}")
    finally:
        for other in others:
            if other.poll() is None:
                other.send_signal(signal.SIGINT)
            try:
                errors.append(other.communicate(timeout=30)[1])
            except subprocess.TimeoutExpired:
                other.kill()
                check(False, f"a participant did not stop: {other.communicate()[1][-1500:]}")
    check_replay(scene, run)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bin_dir")
    parser.add_argument("--seed", type=int, default=1)
    tests = {"run": [test_run, test_tampered_record], "apart": [test_apart], "kills": [test_kills], "late": [test_late],
             "hostile": [test_hostile], "calls": [test_calls], "attacks": [test_attacks],
             "faults": [test_disk_full, test_read_only, test_slow_reader, test_damaged_checkpoint,
                        test_damaged_journal, test_clock_skew]}
    parser.add_argument("--only", choices=sorted(tests))
    choice = parser.parse_args()
    failed = skipped = 0
    for name, group in tests.items():
        if choice.only not in (None, name):
            continue
        scene = Scene(choice.bin_dir, choice.seed)
        for test in group:
            start = time.time()
            try:
                test(scene)
                print(f"ok    {test.__doc__} ({time.time() - start:.0f} s)", flush=True)
            except Skipped as skip:
                skipped += 1
                print(f"SKIPPED {test.__doc__}: {skip}", flush=True)
            except (Failure, subprocess.TimeoutExpired) as failure:
                failed += 1
                print(f"FAILED {test.__doc__}: {failure}\n  again: whole_run.py {choice.bin_dir} "
                      f"--seed {choice.seed} --only {name}", flush=True)
                break
        scene.close()
    sys.exit(1 if failed else 77 if skipped else 0)


if __name__ == "__main__":
    main()
