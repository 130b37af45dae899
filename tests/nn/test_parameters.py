"""One flat buffer with named views."""

import numpy

from minicap.nn.parameters import Parameters


def test_views_share_the_buffers_memory():
    p = Parameters({"a": (2, 3), "b": (4,)}, "float64")
    assert p.flat.tolist() == [0] * 10
    p["b"][0] = 5
    p.flat[0] = 3
    assert p.flat[6] == 5 and p["a"][0, 0] == 3
    assert list(p) == ["a", "b"] and len(p) == 2
    assert all(view.flags.c_contiguous for view in p.values())


def test_like_allocates_another_buffer():
    p = Parameters({"a": (2, 3)}, "float32")
    gradients = p.like()
    gradients["a"][...] = 1
    assert (p.flat == 0).all() and (gradients.flat == 1).all()
    assert gradients.flat.dtype == numpy.float32 and gradients["a"].shape == (2, 3)
