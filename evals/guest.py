"""What runs in the checker's separate process: limits first, then the program, then the secret.

Started by path, as a script, by `checker`; imports nothing of diffcode. The job is JSON on standard input. The only
line written is the job's secret if the program ran to its end and left nothing behind, else `!` and what went wrong.
"""

import json
import os
import resource
import sys
import types


def main() -> None:
    job = json.load(sys.stdin)
    report = silence()
    limit(job["memory"], job["seconds"], job["file_size"])
    wrong = run(job["program"])
    os.write(report, f"!{wrong}".encode() if wrong else job["secret"].encode())
    # No atexit handlers and no waiting for threads: the verdict is out.
    os._exit(0)


def silence() -> int:
    """Point the standard streams at the null device; what is returned still leads to the checker."""
    report = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    return report


def limit(memory: int, seconds: int, file_size: int) -> None:
    """Hard limits of this process and whatever it starts."""
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_CORE, 0),
        # Counts every process of the user, so 1 means "start no other"; the kernel does not hold root to it.
        (resource.RLIMIT_NPROC, 1),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def run(program: str) -> str:
    """Empty if the program ran to its end, else what went wrong."""
    # A module of its own, not __main__: a `if __name__ == "__main__":` block is no part of the test.
    module = types.ModuleType("program")
    sys.modules["program"] = module
    try:
        exec(compile(program, "program", "exec"), module.__dict__)
    except BaseException as error:  # SystemExit too: leaving early is not passing
        return type(error).__name__
    return "left a process behind" if has_children() else ""


def has_children() -> bool:
    """Whether a process that the program started still runs; those that have ended are reaped."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


if __name__ == "__main__":
    main()
