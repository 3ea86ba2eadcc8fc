"""``report.html``: one file with the cases of an evaluation, their figures, and a viewer for some of them.

It asks nothing of the network and of no other file, and what it may do is bound by a policy in its own head.
"""
