"""Holds FOLDER/all.h5 of a simulation against the tables in CSV beside it, with h5py alone."""
import csv
import pathlib
import sys

import h5py

folder = pathlib.Path(sys.argv[1])


def rows(name):
    with open(folder / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


with h5py.File(folder / "all.h5") as file:
    assert file.attrs["format"] == "yumoe simulation" and len(file.attrs["ledger_digest"]) == 64
    assert set(file) == {"subnets", "balances", "epochs", "payouts"}, list(file)
    subnets = file["subnets"]
    assert subnets["tao_reserve"].attrs["units"] == "rao"
    assert subnets["price"].attrs["units"] == "TAO/alpha"
    table = rows("subnets")
    assert len(table) == len(subnets["block"]) > 0
    for i, row in enumerate(table):
        assert int(row["tao_reserve_rao"]) == subnets["tao_reserve"][i]
        assert abs(float(row["price_tao"]) - subnets["price"][i]) < 1e-8
        assert row["subnet"] == subnets["subnet"].asstr()[i]
    balances = file["balances"]
    table = rows("balances")
    assert len(table) == len(balances["amount"])
    for i, row in enumerate(table):
        assert int(row["free_rao"] or row["alpha_rao"]) == balances["amount"][i]
        assert row["account"] == balances["account"].asstr()[i]
    payouts = file["payouts"]
    table = [row for row in rows("epochs") if row["uid"]]
    assert len(table) == len(payouts["uid"]) > 0
    for i, row in enumerate(table):
        assert int(row["incentive_rao"]) == payouts["incentive"][i]
        assert row["hotkey"] == payouts["hotkey"].asstr()[i]
    for group in file.values():
        lengths = {len(column) for column in group.values()}
        assert len(lengths) == 1, lengths
        assert all("meaning" in column.attrs for column in group.values())
