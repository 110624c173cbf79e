"""Pickled lists of arrays: those that pickle.dump makes are read, all others are refused unrun."""

import os
import pickle
import pickletools
import random
import re

import numpy as np
import pytest

from common.files import book_pickle
from common.files.book_pickle import read_array_list
from tests.builders import generator, same

every_protocol = pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
each_kind_of_protocol = pytest.mark.parametrize("protocol", [0, 2, 5])  # text, binary, with frames


@pytest.fixture
def write(tmp_path):
    def write(data):
        path = tmp_path / "weights.pkl"
        path.write_bytes(data)
        return path

    return write


def weights(dtype="float16"):
    """A matrix, its transposed view and a vector, as a saved model with a tied weight has them."""
    rng = generator()
    W, b = rng.standard_normal((5, 3)), rng.standard_normal(7)
    return [W.astype(dtype), W.T.astype(dtype), b.astype(dtype)]


def refused(path):
    """The reason that is given for not reading ``path``."""
    with pytest.raises(ValueError) as error:
        read_array_list(path)
    start = f"{path}: not a pickled list of float arrays ("
    assert str(error.value).startswith(start)
    return str(error.value)[len(start) : -1]


# ---- what the book's save_params writes ----


@every_protocol
@pytest.mark.parametrize("dtype", ["float16", "float32", ">f2", ">f4"])
def test_arrays_of_every_protocol_come_back_bit_for_bit(write, protocol, dtype):
    arrays = weights(dtype)
    read = read_array_list(write(pickle.dumps(arrays, protocol)))
    assert len(read) == len(arrays)
    for got, want in zip(read, arrays, strict=True):
        same(got, want)


@every_protocol
def test_a_list_without_a_memo_entry_too_many_reads_the_same(write, protocol):
    data = pickletools.optimize(pickle.dumps(weights(), protocol))
    for got, want in zip(read_array_list(write(data)), weights(), strict=True):
        same(got, want)


def test_files_of_numpy_1_name_its_modules_without_the_underscore(write):
    for protocol in (2, 3):
        data = pickle.dumps(weights(), protocol).replace(b"numpy._core.", b"numpy.core.")
        assert b"numpy.core.multiarray" in data
        for got, want in zip(read_array_list(write(data)), weights(), strict=True):
            same(got, want)


@every_protocol
def test_a_list_may_be_empty_or_hold_one_array_twice(write, protocol):
    assert read_array_list(write(pickle.dumps([], protocol))) == []
    array = weights()[0]
    for got in read_array_list(write(pickle.dumps([array, array], protocol))):
        same(got, array)


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_array_list(tmp_path / "missing.pkl")


# ---- files that are spoilt ----


@each_kind_of_protocol
def test_a_file_cut_off_at_any_length_is_refused(write, protocol):
    data = pickle.dumps(weights()[1:], protocol)
    for length in range(len(data)):
        refused(write(data[:length]))


@each_kind_of_protocol
def test_a_file_that_goes_on_after_its_end_is_refused(write, protocol):
    assert "goes on after its end" in refused(write(pickle.dumps(weights(), protocol) + b"."))


@each_kind_of_protocol
def test_altered_bytes_give_arrays_or_a_reason(write, protocol):
    """There is no checksum in such a file: a flip within a value is a value."""
    data, rng = pickle.dumps(weights(), protocol), random.Random(protocol)
    for _ in range(300):
        spoilt = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            spoilt[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        try:
            arrays = read_array_list(write(bytes(spoilt)))
        except ValueError:
            continue
        assert sum(array.nbytes for array in arrays) <= len(data)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (weights()[0], "it is no list"),
        ((weights()[0],), "it is no list"),
        ([1.0], "BINFLOAT"),
        ([None], "item 0 of the list is no array"),
        ([weights()], "item 0 of the list is no array"),
        ({"W": weights()[0]}, "EMPTY_DICT"),
        ([np.float16(3)], "'numpy._core.multiarray scalar'"),
        ([np.zeros(3)], "neither float16 nor float32"),
        ([np.zeros(3, dtype="int32")], "neither float16 nor float32"),
        ([np.array([None, {}])], "neither float16 nor float32"),
        ([np.zeros(3, dtype=[("a", "f2")])], "neither float16 nor float32"),
        ([np.zeros((2, 2, 2), dtype="f2")], "neither a vector nor a matrix"),
        ([np.zeros((), dtype="f2")], "neither a vector nor a matrix"),
        ([np.zeros((0, 3), dtype="f2")], "no number above 0"),
        ([np.ma.masked_array(np.zeros(3, dtype="f2"))], "'numpy.ma"),
        ([np.zeros(3, dtype="f2").view(np.recarray)], "recarray'"),
    ],
)
def test_pickles_of_other_things_are_refused(write, value, reason):
    assert reason in refused(write(pickle.dumps(value, 4)))


@pytest.mark.parametrize(
    "data",
    [b"", b".", b"the quick brown fox", b"\x89PNG\r\n\x1a\n", bytes(1000), b"\xff" * 1000],
    ids=["empty", "stop", "text", "png", "zeros", "ones"],
)
def test_files_of_another_kind_are_refused(write, data):
    refused(write(data))


# ---- files that want to do something ----


class Calls:
    """Pickles to a call of ``function(*arguments)``, with ``state`` set on what it returns."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


@each_kind_of_protocol
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch {}",)),
        (eval, ("open('{}', 'w')",)),
        (exec, ("open('{}', 'w')",)),
        (open, ("{}", "w")),
        (np.save, ("{}", 1)),
        (np.load, ("{}",)),
        (np.testing.rundocs, ("{}",)),
        (getattr, (os, "system")),
        (__import__, ("os",)),
        (bytes, (10**12,)),
        (bytearray, (10**12,)),
        (np.zeros, (10**12,)),
        (np.ndarray, ((10**6, 10**6),)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_call_is_refused_and_never_made(write, tmp_path, protocol, function, arguments):
    made = tmp_path / "made"
    arguments = [a.format(made) if isinstance(a, str) else a for a in arguments]
    if os in arguments:  # a module cannot be pickled, but a call that imports it can
        arguments[arguments.index(os)] = Calls(__import__, "os")
    bad = Calls(function, *arguments)
    data = pickle.dumps([*weights(), bad], protocol)
    reason = refused(write(data))
    assert "it names " in reason or "as no array does" in reason
    assert not made.exists()


def reconstruct(*arguments):
    return Calls(np._core.multiarray._reconstruct, *arguments)


@each_kind_of_protocol
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (lambda: reconstruct(np.recarray, (0,), b"b"), "recarray'"),
        (lambda: reconstruct(np.dtype, (0,), b"b"), "calls _reconstruct as no array does"),
        (lambda: reconstruct(np.ndarray, (10**6, 10**6), b"b"), "calls _reconstruct as no array"),
        (lambda: reconstruct(np.ndarray, (0,), b"O"), "calls _reconstruct as no array does"),
        (lambda: reconstruct(np.ndarray, (0,), b"b"), "item 0 of the list is no array"),
        (lambda: Calls(np.dtype, "O", False, True), "neither float16 nor float32"),
        (lambda: Calls(np.dtype, "V99999999999", False, True), "neither float16 nor float32"),
        (lambda: Calls(np.dtype, "f2", False, False), "calls dtype as no array does"),
        (lambda: Calls(np.dtype, "f2", False, True, state={"x": 1}), "EMPTY_DICT|DICT"),
        (lambda: Calls(np.dtype, "f2", False, True, state=(3, "|") + (None,) * 3), "sets a state"),
        (lambda: [os.system], "it names '(posix|nt) system'"),
    ],
)
def test_the_names_of_an_array_cannot_be_used_otherwise(write, protocol, bad, reason):
    assert re.search(reason, refused(write(pickle.dumps([bad()], protocol))))


def state_of(shape, raw, is_fortran=False, version=1, dtype="f2"):
    array = reconstruct(np.ndarray, (0,), b"b")
    array.call = (*array.call, (version, shape, np.dtype(dtype), is_fortran, raw))
    return array


@each_kind_of_protocol
@pytest.mark.parametrize(
    ("shape", "raw", "reason"),
    [
        ((10**9, 10**9), b"1234", "do not fill its shape"),
        ((2**64, 2**64), b"1234", "do not fill its shape|opcode LONG"),
        ((-1, -2), b"1234", "no number above 0"),
        ((1.0, 2), b"1234", "opcode (BIN)?FLOAT"),
        ((True, 2), b"1234", "no number above 0"),
        ((2,), "1234", "without bytes"),
        ((2,), ["a", "b"], "without bytes"),
        (2, b"1234", "neither a vector nor a matrix"),
        ((2,) * 40, b"1234", "neither a vector nor a matrix"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_before_memory_is_taken(
    write, protocol, shape, raw, reason
):
    data = pickle.dumps([state_of(shape, raw)], protocol)
    assert re.search(reason, refused(write(data)))


def test_a_state_is_set_once(write):
    one = pickle.dumps([state_of((2,), b"1234")], 2)
    good = read_array_list(write(one))
    same(good[0], np.frombuffer(b"1234", "f2"))
    start = one.index(b"\x87") - 0  # the arguments of _reconstruct
    state = one[one.index(b"(", start) : one.index(b"b", start + 20)]
    twice = one[: one.rindex(b"b")] + b"b" + state
    refused(write(twice + one[one.rindex(b"b") :]))


@pytest.mark.parametrize(
    ("opcodes", "reason"),
    [
        (b"(" * 5000 + b".", "it is no list"),
        (b"]" + b"\x85" * 9000 + b".", "it is no list"),
        (b"]" + b"\x94]" * 9000 + b".", "more than 10000 opcodes"),
        (b"]r\xff\xff\xff\x7f.", None),  # a memo index that would be 2 GiB of table
        (b"]p999999999999999999\n.", None),
        (b"j\xff\xff\xff\x7f.", "LONG_BINGET takes what is not there"),
        (b"\x8b\xff\xff\xff\x7f.", "not enough data"),  # LONG4 of 2 GiB
        (b"\x8a\xff" + b"\xff" * 255 + b".", "it is no list"),  # LONG1
        (b"\x8e" + b"\xff" * 7 + b"\x7f.", "bytes"),  # BINBYTES8 of 2**63
        (b"\x8e" + b"\x00" * 5 + b"\x01\x00\x00.", "bytes"),
        (b"\x96" + b"\x00" * 5 + b"\x01\x00\x00.", "bytes"),  # BYTEARRAY8
        (b"S'\\x'\n.", ""),  # escapes that do not end, or that Python does not know
        (b"S'\\d'\n.", "the opcode STRING"),
        (b"I" + b"9" * 100_000 + b"\n.", ""),
        (b"L" + b"9" * 100_000 + b"L\n.", ""),
        (b"]0.", "the opcode POP"),
        (b"]2a.", "the opcode DUP"),
        (b"}.", "the opcode EMPTY_DICT"),
        (b"\x8f.", "the opcode EMPTY_SET"),
        (b"Pmine\n.", "the opcode PERSID"),
        (b"]Q.", "the opcode BINPERSID"),
        (b"\x82\x01.", "the opcode EXT1"),
        (b"\x97.", "the opcode NEXT_BUFFER"),
        (b"(ios\nsystem\n.", "the opcode INST"),
        (b"(cos\nsystem\no.", "it names 'os system'"),
        (b"cnumpy\nndarray\n)\x81.", "the opcode NEWOBJ"),
        (b"cnumpy\nndarray\n)}\x92.", "the opcode EMPTY_DICT"),
        (b"cnumpy\nndarray\n)R.", "it calls ndarray as no array does"),
        (b"]cnumpy\ndtype\n]R.", "it calls what is no function"),
        (b"]K\x01\x85R.", "it calls what is no function"),
        (b"cnumpy\nndarray\nNb.", "sets a state"),
        (b"]Nb.", "sets a state"),
        (b"b.", "BUILD takes what is not there"),
        (b"a.", "APPEND takes what is not there"),
        (b"e.", "APPENDS takes what is not there"),
        (b"t.", "TUPLE takes what is not there"),
        (b"(K\x01\x86.", "TUPLE2 takes what is not there"),
        (b"NNa.", "it appends to what is no list"),
        (b"]q\x00h\x00a.", "item 0 of the list is no array"),  # a list in itself
        (b"K\x01K\x02\x93.", "without text"),
        (b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93.", "it names 'os system'"),
        (b"c" + b"a" * 5000 + b"\nb\n.", "it names 'aaa"),
        (b"cnumpy\ncore.multiarray._reconstruct\n.", "it names 'numpy core.multiarray"),
        (b"c_codecs\nencode\n(NX\x06\x00\x00\x00latin1tR.", "encodes what is no text"),
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00hextR.", "calls encode as no"),
    ],
)
def test_hand_written_opcodes_end_in_a_reason(write, opcodes, reason):
    path = write(opcodes)
    if reason is None:
        assert read_array_list(path) == []
    else:
        assert reason in refused(path)
        assert len(refused(path)) < 300


def test_bytes_that_are_there_once_cannot_become_many_arrays(write):
    """One megabyte, kept in the memo and made into an array a hundred times."""
    one = pickle.dumps([np.zeros(1 << 19, dtype="f2")], 5)
    call = one[one.index(b"(\x96") : one.rindex(b"R") + 1]  # the arguments of _frombuffer
    head = one[: one.index(b"(\x96")]
    again = b"h\x03(h\x04h\x0a" + b"J\x00\x00\x08\x00\x85h\x0etR"
    assert len(read_array_list(write(head.replace(b"]\x94", b"]\x94(", 1) + call + b"e."))) == 1
    many = head.replace(b"]\x94", b"]\x94(", 1) + call + again * 100 + b"e."
    assert "larger than the file" in refused(write(many))


def test_text_that_is_there_once_cannot_be_encoded_many_times(write):
    text = b"X\x00\x00\x10\x00" + b"a" * (1 << 20) + b"q\x00"
    call = b"c_codecs\nencode\n(h\x00X\x06\x00\x00\x00latin1tR"
    assert "larger than the file" in refused(write(text + call * 100 + b"."))


def test_a_file_that_is_too_large_is_refused_unread(write, monkeypatch):
    data = pickle.dumps(weights())
    monkeypatch.setattr(book_pickle, "MAX_BYTES", len(data))
    assert len(read_array_list(write(data))) == 3
    monkeypatch.setattr(book_pickle, "MAX_BYTES", len(data) - 1)
    assert f"more than {len(data) - 1} bytes" in refused(write(data))


def test_pickle_and_numpy_run_nothing_while_a_file_is_read(write, monkeypatch):
    path = write(pickle.dumps(weights(), 2))

    def fails(*arguments, **keywords):
        raise AssertionError("called")

    monkeypatch.setattr("numpy._core.multiarray._reconstruct", fails)
    for name in ("pickle.load", "pickle.loads", "pickle.Unpickler", "builtins.__import__"):
        monkeypatch.setattr(name, fails)
    assert len(read_array_list(path)) == 3
