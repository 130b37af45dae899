"""Exercises: implement each layer yourself, graded by minicap's gradient checks.

    python -m exercises                 list the exercises and your progress
    python -m exercises lstm_step       grade exercises/lstm_step.py

Each file has a function whose docstring gives the mathematics; its body is up to you. If a gradient
is wrong, the grader names it and compares it with the gradients of known bugs (the mutants in
tests/mutants.py). If it equals one of them, the grader names the bug.
"""
