"""The supervisor as the first process of a container, which inherits the processes that others leave behind."""

import subprocess
import sys

from tests.servers import ROOT

AS_FIRST_PROCESS = """
import ctypes, multiprocessing, os, time
from serving.process.orphans import reap_orphans

def sleep():
    time.sleep(60)

if __name__ == "__main__":
    pr_set_child_subreaper = 36  # of sys/prctl.h: orphans become this process' children
    assert ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1) == 0
    os.getpid = lambda: 1
    worker, alive = (multiprocessing.get_context("fork").Process(target=sleep) for _ in range(2))
    worker.start()
    alive.start()
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        orphan = os.fork()
        if orphan:
            os.write(writer, str(orphan).encode())
        os._exit(3)
    os.waitpid(parent, 0)
    orphan = int(os.read(reader, 9))
    worker.kill()
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)
    reap_orphans()
    print(os.path.exists(f"/proc/{orphan}"), alive.is_alive())
    worker.join()
    print(worker.exitcode)
    alive.kill()
    alive.join()
    reap_orphans()
    print(alive.exitcode)
"""


def test_the_first_process_reaps_what_others_left_and_keeps_the_exit_codes_of_its_own() -> None:
    command = [sys.executable, "-c", AS_FIRST_PROCESS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "-9", "-9"]


NOT_FIRST = """
import os
from serving.process.orphans import reap_orphans

child = os.fork()
if child == 0:
    os._exit(3)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
reap_orphans()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_any_other_process_leaves_its_children_to_those_that_started_them() -> None:
    done = subprocess.run([sys.executable, "-c", NOT_FIRST], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3"]
