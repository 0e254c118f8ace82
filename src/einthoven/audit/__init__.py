"""The duplicate audit: one recording met twice, found from its signal.

Archives overlap: the Challenges contain PTB-XL and PTB, at other rates, in other units, with
trimmed ends. A copy in the training split and another in the test split is a leak that no id shows.
Sketches find candidates without looking at all pairs; verification compares the candidates.
"""
