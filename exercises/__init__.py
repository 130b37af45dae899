"""Exercises: write each layer yourself; minicap's own gradient checks grade it.

    python -m exercises                 what there is, and how far you are
    python -m exercises lstm_step       grade exercises/lstm_step.py

Each file holds a function whose docstring gives the mathematics and whose body is left out. When
a gradient is wrong, the grader says which, and compares it with those of known mistakes (the
mutants of tests/mutants.py): if it equals one of them, that is the mistake.
"""
