#!/usr/bin/env python3
"""Prints what DataJoint itself reads of exported runs: one JSON object a trained model, with its configurations and,
with a store, the size of its weights. Needs the package datajoint.

usage: read_datajoint.py HOST PORT USER PASSWORD SCHEMA [STORE]
"""

import json
import os
import sys
import tempfile

import datajoint as dj

host, port, user, password, schema = sys.argv[1:6]
dj.config.update({"database.host": host, "database.port": int(port), "database.user": user})
dj.config.update({"database.password": password, "database.use_tls": False, "enable_python_native_blobs": True})
if len(sys.argv) > 6:
    dj.config["stores"] = {"minio": {"protocol": "file", "location": sys.argv[6], "stage": tempfile.mkdtemp()}}
lab = dj.VirtualModule("lab", schema)
trained = lab.TrainedModel * lab.Model * lab.Dataset * lab.Trainer
for row in trained.fetch(as_dict=True, order_by="seed"):
    key = {name: row[name] for name in lab.TrainedModel.primary_key}
    row = {name: value for name, value in row.items() if not name.endswith("_ts")}
    if len(sys.argv) > 6:
        path = (lab.TrainedModel.ModelStorage & key).fetch1("model_state", download_path=tempfile.mkdtemp())
        row["state_bytes"] = os.path.getsize(path)
        row["state_name"] = os.path.basename(path)
    print(json.dumps(row))
