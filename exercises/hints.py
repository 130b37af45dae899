"""Explanations of known bugs, where the mutant's name (tests/mutants.py) says too little."""

HINTS = {
    "dense: no bias gradient": "the bias has no gradient: b is added to every row, so db is the "
    "sum of dz over the rows",
    "dense: bias gradient averaged": "the bias gradient is the mean over the rows; it must be the "
    "sum",
    "dense: W in place of its transpose": "dx is dz W; it must be dz times the transpose of W",
    "dense: no slope of the activation": "dz is set to dy: the backward pass of the activation is "
    "missing",
    "elu: the slope of a ReLU": "the slope is 0 where z < 0, like that of a ReLU; the ELU has "
    "exp(z) there",
    "elu: exp of the output, not of the input": "the slope is exp(y) where z < 0; it must be "
    "exp(z), which is y + 1",
    "dropout: no mask in the backward pass": "the mask is missing in the backward pass",
    "embedding: repeated words counted once (buffered +=)": "the row of a repeated word has only "
    "one of its gradients: `dtable[ids] += dy` adds only one row per id",
    "embedding: repeated words averaged": "the gradients of a repeated word are averaged; they "
    "must be added",
    "lstm_step: no slope of tanh(c)": "the path from h' to c' misses the slope of tanh, 1 - tanh^2",
    "lstm_step: j's slope as if it were a sigmoid": "j is a tanh, so its slope is 1 - j^2, not "
    "j (1 - j)",
    "lstm_step: c' in place of c at the forget gate": "the gradient of the forget gate uses the "
    "new cell state; the gate multiplies the old one",
    "lstm_step: c' in place of tanh(c') at the output gate": "the gradient of the output gate uses "
    "the cell state; the gate multiplies t = tanh(c')",
    "lstm_step: no dc from the next step": "the gradient from the next step (the argument dc) is "
    "not used: c' reaches the loss in two ways",
    "lstm_step: dc without the forget gate": "the gradient of c misses the factor f: the old cell "
    "state reaches the new one through the forget gate",
    "lstm: no dh from the next step": "h of a step also reaches the loss through the next step: "
    "dz U^T of the next step is not added to dh",
    "lstm: dh from other sequences": "the gradient from the next step belongs to other sequences: "
    "those that have a next step are the first rows, not the last",
    "lstm: dh summed over all later steps": "the gradient from the next step is added to the one "
    "from the step after it; it must replace it",
    "lstm: h after the step, not before it, in dU": "dU uses h after each step; U multiplies h "
    "before it",
    "lstm: no gradient for h0": "h0 has no gradient: it is dz U^T of the first step",
    "lstm: no gradient for c0": "the gradient of c0 is zero: it misses the path through the "
    "forget gate of the first step",
    "loss: no 1 at the target": "the gradient of the logits is the softmax; 1 must be subtracted "
    "at the target",
    "loss: 1 subtracted before normalisation": "1 is subtracted at the target before "
    "the exponentials are divided by their sum",
    "loss: not normalised": "the exponentials are not divided by their sum",
    "loss: no weights in the backward pass": "the weights are missing in the backward pass",
    "loss: gradient also divided by the number of rows": "the gradient is also divided by the "
    "number of rows; it must be divided by divisor only",
    "loss: no bias gradient": "the bias has no gradient",
    "lstm_step: no forget bias": "1 must be added to the forget gate's input",
    "loss: shift not added back after log": "the largest logit is subtracted before exp and not "
    "added back after log",
}
