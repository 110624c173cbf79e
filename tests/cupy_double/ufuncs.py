"""Elementwise functions by CuPy's rule: the first loop of its list that takes the inputs."""

import functools

import numpy

from tests.cupy_double.counters import counters
from tests.cupy_double.signatures import CUPY

WEAK = {bool: None, int: int, float: float, complex: complex}  # as CuPy's ``CScalar`` has them
SCALARS = (bool, int, float, complex, numpy.generic)
KINDS = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}


class Ufunc:
    """One of them, such as ``cupy.add``.

    Args:
        name: as CuPy and NumPy call it.
        loops: ``ff->f dd->d``.
        inputs: how many arrays it takes.
    """

    array = None  # the class of the double's arrays

    def __init__(self, name, loops, inputs):
        self.__name__, self.nin = name, inputs
        self.loops = [loop.split("->") for loop in loops.split()]
        self.nout = len(self.loops[0][1])
        self.compute = getattr(numpy, name)
        self._chosen = functools.cache(self._choose)

    def __call__(self, *args, out=None, dtype=None, casting="same_kind"):
        if not self.nin <= len(args) <= self.nin + self.nout:
            raise TypeError(f"cupy.{self.__name__}: expected {self.nin} arrays, got {len(args)}")
        args, given = args[: self.nin], args[self.nin :]
        if given:
            (out,) = given
        wanted = None if dtype is None else numpy.dtype(dtype).char
        types, _ = self._chosen(tuple(map(_kind, args)), wanted)
        values = [
            numpy.asarray(x, dtype=t) if type(x) in WEAK else _bare(x).astype(t, copy=False)
            for x, t in zip(args, types, strict=True)
        ]
        options = {} if out is None else {"out": self._out(out, args), "casting": casting}
        with numpy.errstate(all="ignore"):
            found = self.compute(*values, **options)
        several = found if isinstance(found, tuple) else (found,)
        if several[0].size:
            counters.launch(self.__name__)
        if out is not None:
            return out
        made = tuple(map(self.array, several))
        return made if isinstance(found, tuple) else made[0]

    def _out(self, out, args):
        if not isinstance(out, self.array):
            raise TypeError(f"cupy.{self.__name__}: expected out on the device, got {type(out)}")
        for x in args:
            is_other = isinstance(x, self.array) and x is not out
            if is_other and numpy.may_share_memory(x._values, out._values):
                counters.launch("copy")  # of an argument that the result may overwrite
        return out._values

    def _choose(self, kinds, wanted):
        if wanted is not None:
            for types, results in self.loops:
                if set(results) == {wanted}:
                    return types, results
        else:
            kinds = _without_weak_of_higher_kind(kinds)
            for types, results in self.loops:
                if all(map(_takes, kinds, types)):
                    return types, results
        raise TypeError(f"cupy.{self.__name__}: wrong types {kinds}, {wanted}")

    def at(self, a, indices, b=None):
        """``a[indices] += b`` by atomics, of ``cupy.add``."""
        if self.__name__ != "add" or not isinstance(b, self.array):
            raise NotImplementedError(f"cupy.{self.__name__}.at: the double does not have it yet")
        counters.launch("add.at")
        numpy.add.at(a._values, _bare(indices) % len(a), b._values)

    def reduceat(self, array, indices, axis=0, dtype=None, out=None):
        """Differences of one running sum, as in CuPy's ``_add_reduceat``."""
        from tests.cupy_double.routines import running

        if self.__name__ != "add" or axis != 0 or out is not None:
            raise NotImplementedError(f"cupy.{self.__name__}.reduceat: not in the double yet")
        counters.launch("add.reduceat", 10)
        values, starts = array._values, _bare(indices)
        sums = running(values if dtype is None else values.astype(dtype), axis)
        sums = numpy.concatenate([numpy.zeros_like(sums[:1]), sums])
        ends = numpy.append(starts[1:], len(values))
        mask = (starts >= ends).reshape(-1, *[1] * (values.ndim - 1))
        return self.array(numpy.where(mask, values[starts], sums[ends] - sums[starts]))


def _bare(x):
    """The NumPy array or number inside; what lies on the host is refused."""
    if isinstance(x, Ufunc.array):
        return x._values
    if isinstance(x, numpy.generic):
        return x
    raise TypeError(f"Unsupported type {type(x)}")


def _kind(x):
    """The dtype of an input, and whether it is a Python number that gives way."""
    if type(x) in WEAK:
        return (WEAK[type(x)] or numpy.dtype(bool), WEAK[type(x)])
    return _bare(x).dtype, None


def _without_weak_of_higher_kind(kinds):
    """Python numbers count as what they are where no array has their kind: uint8(1) + 0.5."""
    arrays = [KINDS[dtype.kind] for dtype, weak in kinds if not weak]
    numbers = [KINDS[numpy.dtype(weak).kind] for _, weak in kinds if weak]
    if arrays and numbers and max(arrays) >= max(numbers):
        return kinds
    return tuple((numpy.dtype(dtype), None) for dtype, _ in kinds)


def _takes(kind, char):
    dtype, weak = kind
    if weak:
        return numpy.result_type(weak(0), char) == char or numpy.can_cast(numpy.dtype(weak), char)
    return numpy.can_cast(dtype, char)


@functools.cache
def ufunc(name):
    """``cupy.NAME``."""
    described = CUPY[name]
    return Ufunc(name, described["loops"], described["inputs"])
