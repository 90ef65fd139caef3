"""The digits are scikit-learn's, whether its file is read or scikit-learn is asked."""

import numpy as np
from sklearn.datasets import load_digits

from equigrid.grid.datasets.sources import digits


def test_the_file_is_what_scikit_learn_gives(monkeypatch):
    grey, labels = load_digits(return_X_y=True)
    for spec in (None, "real"):  # where the file is not found, and where it is
        with monkeypatch.context() as patched:
            if spec is None:
                patched.setattr(digits, "find_spec", lambda name: None)
            found, classes = digits._file()
        assert np.array_equal(found, grey)
        assert found.dtype == grey.dtype
        assert np.array_equal(classes, labels)
        assert classes.dtype == np.int64
