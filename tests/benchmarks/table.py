"""All benchmarks of pretraining and prediction in one table, with the limits they should keep.

Run by hand, on a quiet machine with 6 GB of free memory: `python tests/benchmarks/table.py`. Takes
about five minutes on two cores. MPM_THREADS sets the number of threads of torch, OMP_NUM_THREADS
that of numpy. Aligning and the data cube have scripts of their own, which take longer.
"""

import os

import bench_prediction
import bench_training
import bench_windows

if __name__ == "__main__":
    os.environ["MPM_RUN"] = "1"  # no progress bars
    bench_windows.main()
    bench_training.main()
    bench_prediction.main(["dropout", "negatives"])
