"""What can be wrong with a data set, one idea a file.

| file | what it does |
|---|---|
| ``facts`` | one pass through a file, block by block: its grid, digest, values |
| ``survey`` | the facts of many files, by several processes, kept in the cache folder |
| ``pairs`` | what is missing, or cannot be read |
| ``grids`` | voxels of image and label that do not lie in the same places |
| ``values`` | labels' values; NaN and inf; constant images |
| ``duplicates`` | the same voxels twice |
| ``outliers`` | cases that are unlike the others |
| ``splits`` | patients in several folds or parts |
| ``run`` | all of them, for a data set |
| ``report``, ``table``, ``page`` | what was found, as JSON, for the terminal, as HTML |

A finding names cases in ``case`` and ``others`` alone, never in its sentences, so that names can be replaced.
"""
