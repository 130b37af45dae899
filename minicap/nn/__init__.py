"""Layers, loss and optimiser: one file each, the forward pass next to the backward pass.

A layer is a function that returns its output and a function for its backward pass:

    y, backward = dense(x, Wb)
    dx, dWb = backward(dy)

``dy`` is the upstream gradient, dL/dy for a scalar loss L, and ``backward`` returns dL/dx and
dL/dWb. It is a closure over the values that it needs from the forward pass, and it runs once. The
lines of each forward pass are numbered, and each line of the backward pass cites the number of the
line that it differentiates ("from 2"). The argument ``out=`` of a backward pass is the array that
receives the gradient of the layer's parameters.

A weight matrix has its bias as its last row: ``Wb`` is [W; b].

docs/walkthrough derives every backward pass in chapters 4 to 9; chapter 8 shows how they are
tested.
"""
