"""Reads FOLDER/c.h5 with h5py alone and holds it against what the test wrote beside it."""
import pathlib
import sys

import h5py
import numpy

folder = pathlib.Path(sys.argv[1])
with h5py.File(folder / "c.h5") as file:
    attributes = dict(file.attrs)
    assert attributes["format"] == "yumoe checkpoint", attributes
    assert attributes["format_version"] == 1 and attributes["run"] == "run-1", attributes
    assert attributes["round"] == 12 and attributes["journal_sequence"] == 120, attributes
    assert len(attributes["version_digest"]) == 64, attributes

    model = dict(file["model"].attrs)
    assert model["width"] == 24 and model["experts"] == 3, model
    assert model["rope_base"] == 12345.678 and model["tied_embedding"] == 1, model

    parameters = numpy.fromfile(folder / "parameters.f32", dtype="<f4")
    stored = file["state/parameters"]
    assert stored.dtype == numpy.dtype("<f4") and stored.attrs["units"] == "1", stored
    assert "layout order" in stored.attrs["meaning"]
    assert numpy.array_equal(stored[:], parameters)
    assert file["state/core"].dtype == numpy.uint8 and set(file["state/core"][:]) == {12}
    assert file["state/ledger"].shape == (12,)

    lines = (folder / "names").read_text().splitlines()
    assert len(lines) == len(file["tensors"]), list(file["tensors"])
    for line in lines:
        name, offset, *shape = line.split()
        shape = tuple(int(size) for size in shape)
        tensor = file["tensors"][name]
        begin = int(offset)
        expected = parameters[begin : begin + int(numpy.prod(shape))].reshape(shape)
        assert tensor.shape == shape and numpy.array_equal(tensor[...], expected), name
