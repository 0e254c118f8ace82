"""From raw probabilities to ones that mean what they say, and to decisions and sets of labels.

All of it is fitted on the calibration half of the validation split, whose patients picked neither
the weights nor the epoch. Raw probabilities are averages over crops and windows, as the network
gives them.
"""
