#!/usr/bin/env python3
"""Regenerate tests/data: small pickles as numpy writes them. usage: fixtures.py (with numpy 1 or 2)"""
import os
import pickle

import numpy as np

OUT = os.path.join(os.path.dirname(__file__), "..", "tests", "data")


def arrays():
    a = np.arange(24).reshape(2, 3, 4) - 3
    return {
        "c_f4": a.astype("<f4"),
        "fortran_f8": np.asfortranarray(a.astype("<f8")),
        "big_f4": a.astype(">f4"),
        "i2": a.astype("<i2"),
        "big_i8": a.astype(">i8"),
        "f2": a.astype("<f2"),
        "sliced": np.arange(96).reshape(4, 6, 4)[::2, ::2] * 0 + a,
        "ids": np.array([1, 5, 70000], "<u4"),
        "bools": np.array([True, False, True]),
        "session_id": np.int64(3631896544452),
        "subject_id": "31",
        "negative": -300,
        "nested": {"list": [1, 2.5, None, (b"bytes", True)], "same": a.astype("<f4")},
    }


def session(**changes):
    """3 neurons, 2 time bins, 6 training and 4 test trials over the images 1 to 5."""
    n, b, t = np.meshgrid(np.arange(3), np.arange(2), np.arange(6), indexing="ij")
    responses = (100 * n + 10 * b + t).astype(np.float64)
    full = {
        "subject_id": 31,
        "session_id": "s1",
        "training_responses": responses,
        "testing_responses": np.asfortranarray(responses[:, :, :4].astype(np.float32)),
        "training_image_ids": np.array([1, 2, 3, 4, 5, 1]),
        "testing_image_ids": np.array([4, 4, 5, 5]),
    }
    full.update(changes)
    return full


def sessions():
    good = session()["training_responses"]
    holed = good.copy()
    holed[2, 1, 3] = np.nan
    return {
        "good": session(),
        "nan": session(training_responses=holed),
        "shape": session(training_responses=good[:, :, :5]),
        "axes": session(training_responses=good[0, 0]),
        "image": session(training_image_ids=np.array([1, 2, 3, 4, 5, 9])),
    }


if __name__ == "__main__":
    major = np.__version__.split(".")[0]
    for protocol in (2, 3, 4, 5):
        with open(os.path.join(OUT, f"arrays-np{major}-p{protocol}.pickle"), "wb") as f:
            pickle.dump(arrays(), f, protocol=protocol)
    for name, content in sessions().items():
        with open(os.path.join(OUT, f"session-{name}.pickle"), "wb") as f:
            pickle.dump(content, f, protocol=4)
