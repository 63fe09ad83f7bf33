"""Reads FOLDER/run.h5 with h5py alone and holds it against what the test wrote beside it."""
import hashlib
import pathlib
import sys

import h5py
import numpy

folder = pathlib.Path(sys.argv[1])
with h5py.File(folder / "run.h5") as file:
    assert file.attrs["format"] == "yumoe run" and file.attrs["run"] == "run-7"
    assert set(file) == {"metadata", "events", "updates", "checkpoints", "tables"}, list(file)
    configuration = file["metadata/configuration"].asstr()[()]
    assert configuration == "[run]\nseed = 1\n# \u00e4\n", configuration

    events = file["events"]
    assert events["time_ms"].attrs["units"] == "ms"
    for row, line in enumerate((folder / "expected").read_text().splitlines()):
        sequence, time, kind, chain, payload = line.split()
        begin, end = events["payload_offset"][row : row + 2]
        assert events["sequence"][row] == int(sequence) and events["time_ms"][row] == int(time)
        assert events["kind"].asstr()[row] == kind
        assert events["chain"][row].tobytes().hex() == chain
        assert events["payload"][begin:end].tobytes().hex() == payload[1:]
    assert row + 1 == len(events["sequence"])

    updates = file["updates"]
    assert updates["bytes"].attrs["units"] == "bytes"
    for row in range(len(updates["round"])):
        begin, end = updates["bytes_offset"][row : row + 2]
        digest = hashlib.blake2b(updates["bytes"][begin:end].tobytes(), digest_size=32)
        assert digest.digest() == updates["digest"][row].tobytes()
    assert set(updates["kind"].asstr()[:]) == {"contribution", "aggregate"}

    checkpoint = file["checkpoints/round_0000000004"]
    assert checkpoint.attrs["round"] == 4 and checkpoint.attrs["journal_sequence"] == 20
    assert numpy.all(checkpoint["state/parameters"][:] == 4.5)
    embedding = checkpoint["tensors/embedding"]
    assert embedding.shape == (100, 16) and numpy.all(embedding[...] == 4.5)

    scores = file["tables/scores"]
    assert scores.attrs["meaning"] == "one measurement a row"
    assert scores["round"].dtype == numpy.int64 and list(scores["round"]) == [1, 1, 2]
    assert scores["loss_reduction"].attrs["units"] == "nats/token"
    assert list(scores["loss_reduction"]) == [0.5, -0.25, 1e-3]
    assert list(scores["hotkey"].asstr()) == ["5Alice", "5Bob", "5Zo\u00eb"]
    assert len(file["tables/empty/round"]) == 0
