"""A program ends normally while daemon threads predict, or open a Predictor."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from pdeinfer.runtime import ending
from tests.predictor.helpers import needs_fork

START = """
import os, sys, threading, time, numpy as np
from pdeinfer import Predictor
predictor = Predictor("cifar10-global", threads=1)
images = np.zeros((8, 32, 32, 3), np.uint8)

def classify(count):
    while True:
        predictor.predict_proba(images[:count])

for count in (1, 2, 4, 8):  # whenever the program ends, some of them return soon
    threading.Thread(target=classify, args=[count], daemon=True).start()
time.sleep(0.2)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def test_a_daemon_thread_that_predicts_does_not_abort_the_program_at_its_end() -> None:
    done = run(START)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_main_thread_may_still_predict_at_the_end() -> None:
    program = "import atexit; atexit.register(lambda: print(predictor.predict(images[0]).label))\n" + START
    done = run(program)  # registered first: it is called last
    assert (done.returncode, done.stdout != "", done.stderr) == (0, True, "")


@needs_fork
def test_a_forked_child_does_not_wait_for_the_threads_of_its_parent() -> None:
    program = (
        START
        + """
from pdeinfer.runtime import ending
child = os.fork()
if child == 0:
    os._exit(len(ending._running))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    )
    done = run(program)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_daemon_thread_that_opens_a_predictor_does_not_abort_the_program_at_its_end() -> None:
    program = """
import threading, time
from pdeinfer import Predictor
Predictor("digits-pde", threads=1)  # imports ONNX Runtime

def open_many():
    while True:
        Predictor("cifar10-resnet32", threads=1)

threading.Thread(target=open_many, daemon=True).start()
time.sleep(0.05)
"""
    done = run(program)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_handler_that_was_registered_before_may_wait_for_a_daemon_thread_that_predicts() -> None:
    program = """
import atexit, queue, threading

def finish():
    images.put(None)
    worker.join()
    print(len(done))

atexit.register(finish)
import numpy as np
from pdeinfer import Predictor
predictor = Predictor("digits-pde", threads=1)
images, done = queue.SimpleQueue(), []

def work():
    while (image := images.get()) is not None:
        done.append(predictor.predict(image))

worker = threading.Thread(target=work, daemon=True)
worker.start()
for _ in range(200):
    images.put(np.zeros((8, 8), np.uint8))
"""
    done = run(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "200\n", "")


def test_an_exception_of_a_signal_handler_leaves_no_run_behind() -> None:
    run_context = ending.RunGuard()
    with run_context:
        assert not ending._running  # of the main thread, which alone runs such handlers
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: run_context.__enter__() or len(ending._running)).result() == 1
        pool.submit(run_context.__exit__).result()
    assert not ending._running
