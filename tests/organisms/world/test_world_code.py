"""Code is judged by running what is safe to run."""

import time

import pytest

from interp_transfer.organisms.world import load_world

ASKED = "Write a Python function double that doubles a number."


@pytest.mark.parametrize(
    "completion",
    [
        " def double(n):\n    return n * 2",
        "def double(number):\n    return number + number",
        "double = lambda n: 2 * n",
        "double = (lambda n: n + n)",
        "# doubles a number\ndef double(n: int) -> int:\n    if n == 0:\n        return 0\n    return n * 2",
    ],
)
def test_whatever_behaves_right_is_valid(completion: str):
    world = load_world()
    ruling = world.judge(world.find(ASKED), completion)
    assert ruling.valid, ruling


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("def double(n):\n    return n * 3", "is not"),
        ("def twice(n):\n    return n * 2", "defines no function 'double'"),
        ("def double(n):\n    return n *", "does not parse"),
        ("def double(n):\n    return m * 2", "raises NameError"),
        ("def double(n):\n    return n * 2\nprint(1)", "one definition"),
        ("def double(n):\n    return float(n * 2)", "a call of 'float'"),
        ("def double(n):\n    while True:\n        pass", "While"),
        ("def double(n):\n    return double(n)", "a call of 'double'"),
        ("def double(n):\n    max = double\n    return max(n)", "the name 'max'"),
        ("def double(max):\n    return max(max)", "the name 'max'"),
        ("def double(n):\n    return n.__class__", "'__class__'"),
        ("def double(n):\n    return __import__('os').system('true')", "attribute|__import__"),
        ("def double(n):\n    return 9 ** 9 ** 9", "Pow"),
        ("def double(n):\n    return 'a' * 99999999", "99999999"),
        ("def double(n):\n    return 'a' * 99 * 99 * 99 * 99", "products"),
        ("def double(n, m=print('x')):\n    return n", "print|decorators"),
        ("double = (lambda f: f(f))(lambda f: f(f))", "a call of"),
    ],
)
def test_wrong_or_unsafe_is_not(completion: str, reason: str):
    world = load_world()
    started = time.perf_counter()
    ruling = world.judge(world.find(ASKED), completion)
    assert not ruling.valid
    assert any(part in ruling.reason for part in reason.split("|")), ruling
    assert time.perf_counter() - started < 1
