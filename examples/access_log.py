"""Summarise a web server's access log: requests, errors, slow pages.

Four holes are left in it, so it is no Python yet. Fill them with:  diffcode fill examples/access_log.py
"""

import sys
from collections import Counter
from dataclasses import dataclass


@dataclass
class Request:
    method: str
    path: str
    status: int
    milliseconds: float


def parse(line: str) -> Request:
    """Read one line, for example `GET /index.html 200 12.5`."""
    method, path, status, milliseconds = line.split()
    return Request(method, path, int(status), float(milliseconds))


def mean(values: list[float]) -> float:
    """The arithmetic mean, and 0.0 for an empty list."""
    return ??? if values else 0.0


def error_rate(requests: list[Request]) -> float:
    """The share of requests with a status of 500 or more."""
    errors = [request for request in requests if ???]
    return len(errors) / len(requests) if requests else 0.0


def busiest(requests: list[Request], count: int = 3) -> list[tuple[str, int]]:
    """The paths that were asked for most often, with how often."""
    paths = ???
    return ???


def main() -> None:
    requests = [parse(line) for line in sys.stdin if line.strip()]
    print(f"{len(requests)} requests, {error_rate(requests):.1%} errors")
    print(f"mean time {mean([request.milliseconds for request in requests]):.1f} ms")
    for path, count in busiest(requests):
        print(f"{count:6} {path}")


if __name__ == "__main__":
    main()
