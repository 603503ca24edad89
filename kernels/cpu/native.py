"""The C interface of the engine (engine.h), through ctypes: structs, and the library where it was built."""

import ctypes as c
import os
from functools import cache
from pathlib import Path

VERSION = 9
f32 = c.POINTER(c.c_float)
i32 = c.POINTER(c.c_int32)
Address = c.c_void_p


class Shape(c.Structure):
    _fields_ = [
        (name, c.c_int32)
        for name in ("layers", "width", "heads", "kv_heads", "head_width", "ffn", "vocabulary", "kept", "successor")
    ] + [("norm_eps", c.c_float)]


class Linear(c.Structure):
    _fields_ = [(name, Address) for name in ("weights", "scales", "bias")] + [
        (name, c.c_int32) for name in ("outputs", "inputs", "group", "real_outputs", "bits")
    ]


MAPS = ("qkv", "out", "gate_up", "down")


class Map(c.Structure):
    _fields_ = [(name, Linear) for name in ("base", "low", "high", "undo_low", "undo_high")]


class Layer(c.Structure):
    _fields_ = [("input_norm", Address), ("post_norm", Address)] + [(name, Map) for name in MAPS]


class Weights(c.Structure):
    _fields_ = [
        ("shape", Shape),
        ("layers", c.POINTER(Layer)),
        ("norm", Address),
        ("embedding", Address),
        ("mask", Address),
        ("frequencies", Address),
        ("head", Linear),
        ("span_head", Linear),
        ("kept", Address),
        *((f"successor_{part}", Linear) for part in ("state", "token", "up", "head")),
    ]


class Guess(c.Structure):
    _fields_ = [("token", c.c_int32), ("probability", c.c_float), ("margin", c.c_float), ("entropy", c.c_float)]


class Step(c.Structure):
    _fields_ = [
        ("context", c.c_int32),
        ("rows", c.c_int32),
        ("span_rows", c.c_int32),
        ("undo", c.c_int32),
        ("tokens", Address),
        ("positions", Address),
        ("sights", Address),
        ("base_first", c.c_int32),
        ("base_rows", c.c_int32),
        ("anchors", c.c_int32),
        ("window", c.c_int32),
        ("anchor_base", Address),
        ("shown", Address),
        ("temperature", c.c_float),
        ("allowed", Address),
        ("base_noise", Address),
        ("span_noise", Address),
        ("base_favoured", c.c_int32),
        ("base_favour", c.c_float),
        ("span_favoured", c.c_int32),
        ("span_favour", c.c_float),
        ("cancelled", Address),
    ]


def isa() -> str:
    """The instruction set that the engine chose."""
    found = library()
    return "none" if found is None else str(found.diffcode_isa().decode())


@cache
def library() -> c.CDLL | None:
    """The engine, or None where it was not built, or where DIFFCODE_ISA names code that does not run here.

    DIFFCODE_ENGINE names another build of it, such as one with sanitizers.
    """
    built = sorted(Path(__file__).parent.glob("_engine*.so"))
    found = os.environ.get("DIFFCODE_ENGINE") or next(map(str, built), None)
    if found is None:
        return None
    lib = c.CDLL(found)
    lib.diffcode_isa.restype = c.c_char_p
    if lib.diffcode_version() != VERSION or lib.diffcode_isa() is None:
        return None
    for name in ("model_new", "session_new", "session_fork"):
        getattr(lib, f"diffcode_{name}").restype = Address
    lib.diffcode_model_new.argtypes = [c.POINTER(Weights), c.c_int32]
    lib.diffcode_model_free.argtypes = lib.diffcode_session_free.argtypes = [Address]
    lib.diffcode_model_free.restype = lib.diffcode_session_free.restype = None
    lib.diffcode_session_new.argtypes = [Address]
    lib.diffcode_session_fork.argtypes = [Address, c.c_int32]
    lib.diffcode_session_bytes.argtypes, lib.diffcode_session_bytes.restype = [Address], c.c_int64
    lib.diffcode_session_reserve.argtypes = [Address, c.c_int32]
    guesses = c.POINTER(Guess)
    doubles = c.POINTER(c.c_double)
    lib.diffcode_rates.argtypes, lib.diffcode_rates.restype = (
        [c.c_int32, Address, c.c_int64, c.c_int32, doubles, doubles],
        None,
    )
    lib.diffcode_linear_run.argtypes = [c.POINTER(Linear), Address, c.c_int32, Address]
    lib.diffcode_step_run.argtypes = [Address, c.POINTER(Step), guesses, guesses, Address]
    return lib
