"""Process settings of the tests: quiet TensorFlow, one BLAS thread, no display."""

import os

# Before NumPy, TensorFlow or Matplotlib are imported: they read these once.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
