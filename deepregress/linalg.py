"""Linear algebra shared by the design leg, the objective and the solvers (floor 0).

Type aliases of the package and small dense kernels that occur in several steps of the method.

    Vector (n,), Matrix (n, p): float64 arrays
    null_space(A): Z (k, k - m) with A' Z = 0 and Z' Z = I

References: Golub and Van Loan, "Matrix Computations", 4th ed. 2013, ch. 5.
"""

import numpy as np
import numpy.typing as npt
import scipy.linalg

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


def null_space(A: Matrix) -> Matrix:
    """Orthonormal basis of the vectors orthogonal to the columns of A.

    The last k - m columns of the product of the m Householder reflections that bring A to upper
    triangular form, so Z is a smooth function of A and the same on every machine.

    Parameters
    ----------
    A : Matrix
        Constraint vectors as columns, shape (k, m) with m <= k and full column rank.

    Returns
    -------
    Matrix
        Z with `A.T @ Z = 0` and `Z.T @ Z = I`, shape (k, k - m).
    """
    Q, _ = scipy.linalg.qr(A, mode="full")
    return np.ascontiguousarray(Q[:, A.shape[1] :])
