"""Sentences for known mistakes, where the mutant's own name (tests/mutants.py) says too little."""

HINTS = {
    "dense: no bias gradient": "the bias has no gradient: it is added to every row, so db is the "
    "sum of dz over the rows",
    "dense: bias gradient averaged": "the bias' gradient is the mean over the rows; it must be the "
    "sum",
    "dense: W in the place of its transpose": "dx is dz W; it must be dz times the transpose of W",
    "dense: the activation's slope forgotten": "dy was taken for dz: the way back through the "
    "activation is missing",
    "elu: the slope of a ReLU": "the slope is 0 where z < 0, as a ReLU's; an ELU's is exp(z) there",
    "elu: exp of the output instead of the input": "the slope is exp(y) where z < 0; it must be "
    "exp(z), which is y + 1",
    "dropout: no mask on the way back": "the mask is missing on the way back",
    "embedding: repeated words counted once (buffered +=)": "of a word that was looked up several "
    "times only one gradient has arrived: `dtable[ids] += dy` keeps just one of them",
    "embedding: repeated words averaged": "the gradients of a repeated word are averaged, and must "
    "be added",
    "lstm_step: no slope of tanh(c)": "the path from h' to c' misses the tanh's slope, 1 - t^2",
    "lstm_step: j's slope as if it were a sigmoid": "j is a tanh and has the slope 1 - j^2, not a "
    "sigmoid's j (1 - j)",
    "lstm_step: the new cell instead of the old at the forget gate": "the forget gate's gradient "
    "has the new cell in it; the gate multiplies the old one",
    "lstm_step: the cell instead of its tanh at the output gate": "the output gate's gradient has "
    "the cell in it; the gate multiplies t = tanh(c')",
    "lstm_step: dc not carried from the next step": "what the next step says of the cell (the "
    "argument dc) is not used: c' reaches the loss in two ways",
    "lstm_step: dc goes back without the forget gate": "the gradient of c misses the factor f: the "
    "old cell reaches the new one through the forget gate",
    "lstm: dh not carried from the next step": "h of a step reaches the loss through the next step "
    "as well: dz U^T of the step after is not added to dh",
    "lstm: dh of other sequences carried": "what is carried back belongs to other sequences: those "
    "still going are the first rows, not the last",
    "lstm: dh of all later steps carried at once": "the gradient that is carried back is added to "
    "that of the step before it; it must take its place",
    "lstm: h after the step instead of before it in dU": "dU is made with h after each step; U "
    "multiplies the one before",
    "lstm: no gradient for h0": "h0 has no gradient: what is carried out of the first step is lost",
    "lstm: no gradient for c0": "the gradient of c0 is zero: it misses the path through the "
    "forget gate of the first step",
    "loss: the target's 1 forgotten": "softmax is there, but 1 is not taken away at the target",
    "loss: 1 taken from e, which is not normalised yet": "1 is taken away at the target before "
    "the exponentials are divided by their sum",
    "loss: never normalised": "the exponentials are not divided by their sum",
    "loss: weights forgotten on the way back": "the weights are missing on the way back",
    "loss: gradient divided by the number of rows once more": "it is divided by the number of rows "
    "as well; divisor is all there is to divide by",
    "loss: no bias gradient": "the bias has no gradient",
    "lstm_step: no forget bias": "1 is to be added to the forget gate's input",
    "loss: log-sum-exp without its shift given back": "the greatest logit was taken away before "
    "exp and not added again after log",
}
