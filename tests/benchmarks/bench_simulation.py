"""How fast the simulated survey is made, files and start of the processes included.

Run: python tests/benchmarks/bench_simulation.py [galaxies] [image size]
"""
import sys
import tempfile
import time

from zoobook import simulation


def main() -> None:
    galaxies, size = (int(x) for x in (sys.argv[1:] + ["600", "128"][len(sys.argv) - 1 :]))
    for name, workers in (("as it comes", None), ("one process", 1), ("two processes", 2), ("two processes, warm", 2)):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            simulation.make_survey(folder, galaxies, image_size=size, seed=1, workers=workers)
            seconds = time.perf_counter() - start
        print(f"{name}: {galaxies} galaxies of {size} px in {seconds:.1f} s, {galaxies / seconds:.0f} per second")


if __name__ == "__main__":
    main()
