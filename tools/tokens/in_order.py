"""Work on lines by several processes, whose results come in the order of the lines: the same for any number."""

import collections
import concurrent.futures
import multiprocessing
import os
import signal
from concurrent.futures.process import BrokenProcessPool

from json_lines import TokensError

CHUNK = 32
_state = None


def _begin(setup, arguments):
    global _state
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # processes take the place of its threads
    _state = setup(*arguments)


def _chunk(work, lines):
    return [work(_state, *line) for line in lines]


def _chunks(lines):
    chunk = []
    for line in lines:
        chunk.append(line)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _submit(pool, work, chunk):
    """Nothing interrupts it: a process that it starts must hear all that it has to. That process has SIGINT blocked
    for good, since Ctrl-C is the first process's to handle, and SIGTERM until it begins."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        return pool.submit(_chunk, work, chunk)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def map_in_order(lines, state, setup, arguments, work, workers):
    """Yields work(state, *line) of each line. With several workers each makes a state of its own by
    setup(*arguments); `work` and what it returns must be what pickle takes, and it must not raise."""
    if workers == 1:
        for line in lines:
            yield work(state, *line)
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _begin, (setup, arguments)
    )
    waiting = collections.deque()
    try:
        for chunk in _chunks(lines):
            waiting.append(_submit(pool, work, chunk))
            if len(waiting) >= 4 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool:
        raise TokensError(
            "a worker process ended", f"--workers {workers}", "Was memory short? Give fewer workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
