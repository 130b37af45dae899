"""The calculus: one file per layer, forward and backward side by side.

A layer is a function that returns its output and the function that walks back:

    y, backward = dense(x, Wb)
    dx, dWb = backward(dy)

What the way back needs, it closes over. In each forward pass the lines are numbered, and each
line of the backward pass names the number that it differentiates ("from 2"). `out=` tells a
backward pass where to put the gradient of its parameters. The derivations are in
docs/walkthrough, chapters 4 to 9; chapter 8 shows how we know that they are right.
"""
