"""From a data set to a config that a person can read: what is measured, and what follows from it.

measure   one pass through each case: shape, spacing, objects, intensities of the foreground
rules     spacing, intensities, network and window, batch, loss, augmentation, schedule: choices, with reasons
yaml      choices as a config, each under its reason
"""
