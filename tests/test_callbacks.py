"""throttle against a model of its timing, the triggers against their definitions, stop, skip."""

import contextvars
import copy
import functools
import inspect
import itertools
import math
import pickle
import re
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyflux.callbacks import (
    SkipDatum,
    StopTraining,
    early_stopping,
    epochs,
    patience,
    phase,
    plateau,
    skip,
    stop,
    stop_early,
    throttle,
)

# --- throttle ------------------------------------------------------------------------------------


class Clock:
    """A clock to put in the place of time.monotonic; while it is set, time.time makes leaps."""

    def __init__(self):
        self.now = 1000.0

    def __enter__(self):
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(time, "monotonic", lambda: self.now)
        self.patch.setattr(time, "time", lambda: -3600.0 * (self.now % 3))
        return self

    def __exit__(self, *_):
        self.patch.undo()


def timed_runs(calls, timeout, lasts=0.0, flush=False, **modes):
    """Call a throttled function at the times `calls`; give its runs as pairs (time, argument)."""
    runs = []
    with Clock() as clock:

        def f(argument):
            runs.append((round(clock.now - 1000, 6), argument))
            clock.now += lasts

        throttled = throttle(f, timeout, **modes)
        for at in calls:
            clock.now = max(clock.now, 1000 + at)
            throttled(at)
        if flush:
            throttled.flush()
    return runs


LEAD, TRAIL, BOTH, NEITHER = (
    dict(leading=leading, trailing=trailing)
    for leading, trailing in [(True, False), (False, True), (True, True), (False, False)]
)


@pytest.mark.parametrize(
    ("modes", "calls", "expected"),
    [
        (LEAD, [0, 1, 2.1, 3], [(0, 0), (2.1, 2.1)]),
        (LEAD, [0, 0.5, 1.9], [(0, 0)]),
        (LEAD, [0, 2], [(0, 0), (2, 2)]),
        (TRAIL, [0, 0.5, 1], []),
        (TRAIL, [0, 0.5, 1, 2.5], [(2.5, 1)]),
        (TRAIL, [0, 3, 4.9, 5.5], [(3, 0), (5.5, 4.9)]),
        (BOTH, [0, 0.5, 1, 2.5], [(0, 0), (2.5, 1)]),
        (BOTH, [0, 2.5], [(0, 0), (2.5, 2.5)]),
        (BOTH, [0, 1, 3, 4, 5], [(0, 0), (3, 1), (5, 4)]),
        (NEITHER, [0, 0.5, 1, 2.5], [(2.5, 0)]),
        (NEITHER, [0, 2, 3, 4, 6.5], [(2, 0), (6.5, 4)]),
    ],
)
def test_the_timing_table(modes, calls, expected):
    assert timed_runs(calls, 2, **modes) == expected


@pytest.mark.parametrize(
    ("modes", "calls", "expected"),
    [
        (LEAD, [0, 1], [(0, 0)]),
        (TRAIL, [0, 0.5, 1], [(1, 1)]),
        (BOTH, [0], [(0, 0)]),
        (BOTH, [0, 0.5, 1], [(0, 0), (1, 1)]),
        (NEITHER, [0, 0.5, 1], [(1, 0)]),
        (BOTH, [], []),
    ],
)
def test_flush_runs_what_is_pending_at_once(modes, calls, expected):
    assert timed_runs(calls, 2, flush=True, **modes) == expected


def model(calls, timeout, lasts, leading, trailing):
    """Flux's state machine, in which what the timer would run waits for the next call."""
    runs, opens, pending = [], None, None
    now = 0.0
    for at in calls:
        now = max(now, at)
        is_open = opens is None or now >= opens
        run = None
        if is_open and pending is not None:
            run, pending = pending, (at if trailing else None)
        elif is_open and leading:
            run = at
        elif is_open:
            pending, opens = at, now + timeout
        elif trailing:
            pending = at
        if run is not None:
            runs.append((round(now, 6), run))
            now += lasts
            opens = now + timeout
    return runs


@given(
    st.lists(st.integers(0, 12), max_size=12),
    st.sampled_from([0, 0.5, 1, 2, 3, math.inf]),
    st.sampled_from([0, 0.25, 2]),
    st.booleans(),
    st.booleans(),
)
def test_throttle_follows_the_model(steps, timeout, lasts, leading, trailing):
    calls = (np.cumsum(steps) / 4).tolist()
    modes = dict(leading=leading, trailing=trailing)
    runs = timed_runs(calls, timeout, lasts, **modes)
    assert runs == model(calls, timeout, lasts, **modes)
    # Whatever the mode: never two runs within the timeout, never one without a call of its own.
    starts = [at for at, _ in runs]
    assert all(b - (a + lasts) >= timeout for a, b in itertools.pairwise(starts))
    arguments = [argument for _, argument in runs]
    assert arguments == sorted(arguments)
    # With trailing, the last call is never lost.
    if trailing and calls:
        assert timed_runs(calls, timeout, lasts, flush=True, **modes)[-1][1] == calls[-1]


def test_the_window_begins_when_the_function_ends():
    assert timed_runs([0, 3, 4.9, 5], 2, lasts=3) == [(0, 0), (5, 5)]


def test_the_value_is_that_of_the_last_completed_run():
    with Clock() as clock:
        lead = throttle(lambda x: 10 * x, 2)
        trail = throttle(lambda x: 10 * x, 2, leading=False, trailing=True)
        assert [lead(1), lead(2), trail(1), trail(2)] == [10, 10, None, None]
        clock.now += 2
        assert [lead(3), trail(3), trail.flush(), lead.flush()] == [30, 20, 30, 30]


def test_a_function_that_raises_does_not_disarm_it():
    fails = True

    def f(x):
        runs.append(x)
        if fails:
            raise ZeroDivisionError
        return x

    runs = []
    with Clock() as clock:
        lead = throttle(f, 2)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                lead(1)
        both = throttle(f, 2, trailing=True)
        fails = False
        assert both(2) == 2 and both(3) == 2
        fails = True
        clock.now += 2
        with pytest.raises(ZeroDivisionError):
            both(4)  # runs the pending 3
        fails = False
        assert both(5) == 5 and lead(6) == 6 and both(7) == 5
        fails = True
        with pytest.raises(ZeroDivisionError):
            both.flush()
        fails = False
        assert both(8) == 8
    assert runs == [1, 1, 2, 3, 5, 6, 7, 8]


def test_arguments_name_and_signature_are_those_of_the_function():
    def f(state, *, scale=1):
        """What it does."""
        return state, scale

    throttled = throttle(f, 1)
    assert throttled(3, scale=2) == (3, 2)
    assert throttled.__name__ == "f" and throttled.__doc__ == "What it does."
    assert inspect.signature(throttled) == inspect.signature(f)
    assert inspect.signature(throttle(throttle(lambda: 0, 1), 2)) == inspect.signature(lambda: 0)
    assert throttle(functools.partial(f, 3), 1)() == (3, 1)
    assert repr(throttled) == "throttle(f, 1, leading=True, trailing=False)"


def test_calls_during_a_run_come_too_early():
    depth = []

    def f():
        depth.append(len(depth))
        throttled()

    throttled = throttle(f, 0)
    throttled()
    assert depth == [0]


def test_threads_share_one_gate_and_no_thread_is_started():
    running, entered, leave = [], threading.Event(), threading.Event()

    def f(x):
        running.append(x)
        entered.set()
        leave.wait(10)
        return x

    throttled = throttle(f, math.inf, trailing=True)
    before = threading.active_count()
    thread = threading.Thread(target=throttled, args=(1,))
    thread.start()
    assert entered.wait(10) and threading.active_count() == before + 1
    assert throttled(2) is None and throttled(3) is None  # at once, though f is running
    leave.set()
    thread.join(10)
    assert running == [1] and throttled.flush() == 3 and running == [1, 3]


def test_many_threads_run_it_once():
    ready, runs = threading.Barrier(8), []

    def f():
        time.sleep(0.001)
        runs.append(0)

    throttled = throttle(f, 60)

    def work():
        ready.wait()
        for _ in range(50):
            throttled()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runs == [0]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_starts_afresh(again):
    throttled = throttle(math.sqrt, math.inf, leading=True, trailing=True)
    throttled(4)
    twin = again(throttled)
    assert twin(9) == 3 and twin.flush() == 3 and throttled(9) == 2
    assert (twin.timeout, twin.leading, twin.trailing) == (math.inf, True, True)


def test_flush_reaches_the_wrapped_callback():
    p = SimpleNamespace(data=np.zeros(1))
    scores = iter([1.0, 2.0])
    inner = stop_early(lambda: next(scores), 5, [p])
    outer = throttle(inner, 0)
    for value in (1, 2):
        p.data[:] = value
        outer()
    outer.flush()
    assert p.data == [1]


@pytest.mark.parametrize(
    ("f", "timeout", "error", "said"),
    [
        (print, -1, ValueError, "timeout is -1"),
        (print, math.nan, ValueError, "timeout is nan"),
        (print, "5", TypeError, "timeout is '5'"),
        (print, None, TypeError, "timeout is None"),
        (print, True, TypeError, "timeout is True"),
        (None, 5, TypeError, "throttle: f is None, but it must be a function: f itself"),
    ],
)
def test_bad_throttles_say_what_came(f, timeout, error, said):
    with pytest.raises(error, match=re.escape(said)):
        throttle(f, timeout)


# --- stop and skip -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "during", "error", "said"),
    [
        (stop, None, RuntimeError, "none is running"),
        (stop, "loss", StopTraining, "^$"),
        (stop, "callback", StopTraining, "^$"),
        (skip, None, RuntimeError, "call it in the loss"),
        (skip, "loss", SkipDatum, "^$"),
        (skip, "callback", RuntimeError, "already"),
        (stop, "between", StopTraining, "^$"),
        (skip, "between", RuntimeError, "call it in the loss"),
    ],
)
def test_stop_and_skip_know_where_they_are(call, during, error, said):
    def inside():
        phase.set(during)
        with pytest.raises(error, match=said):
            call()

    contextvars.copy_context().run(inside)
    assert phase.get() is None
    assert issubclass(error, Exception)


def test_another_thread_is_outside_the_training():
    caught = []

    def ask():
        try:
            stop()
        except Exception as error:
            caught.append(type(error))

    token = phase.set("callback")
    try:
        thread = threading.Thread(target=contextvars.Context().run, args=(ask,))
        thread.start()
        thread.join()
    finally:
        phase.reset(token)
    assert caught == [RuntimeError]


# --- triggers ------------------------------------------------------------------------------------

scores = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, math.inf, math.nan]), max_size=12)


def answers(make, values, *args, **options):
    values = iter(values)
    trigger = make(lambda: next(values), *args, **options)
    return [trigger() for _ in range(values.__length_hint__())]


def runs_of(flags, wait):
    """Whether the last `wait` flags, up to each place, were all set."""
    return [i + 1 >= wait and all(flags[i + 1 - wait : i + 1]) for i in range(len(flags))]


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 4))
def test_patience_is_a_run_of_the_predicate(flags, wait):
    assert answers(patience, flags, wait) == runs_of(flags, wait)


@given(scores, st.integers(0, 3), st.sampled_from([0, 0.5]))
def test_early_stopping_compares_with_the_best(values, delay, min_dist):
    stuck = []
    for i, score in enumerate(values):
        best = min([math.inf, *(s for s in values[:i] if not math.isnan(s))])
        gain = best - score
        stuck.append(math.isnan(gain) or gain < min_dist)
    assert answers(early_stopping, values, delay, min_dist=min_dist) == runs_of(stuck, delay)


@given(scores, st.integers(0, 3))
def test_plateau_compares_with_the_score_before(values, width):
    flat, last = [], math.inf
    for score in values:
        moved = abs(last - score)
        flat.append(math.isnan(moved) or moved < 1e-6)
        last = last if math.isnan(moved) else score
    assert answers(plateau, values, width) == runs_of(flat, width)


def test_triggers_as_flux_states_them():
    # An equal score is good enough with min_dist=0, which a falling loss always is.
    assert answers(early_stopping, [3, 3, 3], 2) == [False, False, False]
    assert answers(early_stopping, [3, 2, 1], 1) == [False, False, False]
    assert answers(early_stopping, [1, 2, 3, 4], 2) == [False, False, True, True]
    higher = dict(distance=lambda best, score: score - best, init_score=-math.inf)
    assert answers(early_stopping, [0.1, 0.2, 0.1], 1, **higher) == [False, False, True]
    assert answers(early_stopping, [math.nan, 1, math.nan, math.nan], 2) == [False] * 3 + [True]
    assert answers(early_stopping, np.float32([np.inf, np.inf, 1]), 2) == [False, True, False]
    assert answers(plateau, [1, 1, 1, 0, 0], 2) == [False, False, True, False, False]
    assert answers(plateau, [1, 1.4, 1.1], 2, min_dist=0.5) == [False, False, True]


def test_triggers_pass_their_arguments_on():
    assert patience(lambda a, b=0: a == b, 1)(3, b=3)
    assert early_stopping(lambda a, b: a + b, 1, init_score=0)(1, b=1)
    assert not plateau(lambda a, b: a + b, 1)(1, b=1)


@pytest.mark.parametrize("make", [patience, early_stopping, plateau, stop_early])
@pytest.mark.parametrize(
    ("f", "count", "error", "said"),
    [
        (None, 1, TypeError, "f"),
        (len, -1, ValueError, "is -1"),
        (len, 2.0, TypeError, "is 2.0"),
        (len, True, TypeError, "is True"),
    ],
)
def test_bad_triggers_say_what_came(make, f, count, error, said):
    with pytest.raises(error, match=re.escape(said)):
        make(f, count, []) if make is stop_early else make(f, count)


def test_a_predicate_that_is_no_yes_or_no_is_refused():
    with pytest.raises(TypeError, match=r"predicate returned .*; wanted True or False"):
        patience(lambda: np.ones(2) > 0, 1)()


# --- stop_early ----------------------------------------------------------------------------------


@given(scores, st.integers(1, 3), st.booleans())
def test_stop_early_keeps_the_best_parameters(values, delay, restore):
    p = SimpleNamespace(data=np.full((2, 2), -1.0, dtype=np.float32))
    array = p.data
    given_scores = iter(values)
    watch = stop_early(lambda: next(given_scores), delay, iter([p]), restore=restore)
    token = phase.set("callback")
    try:
        for _ in values:
            p.data += 1
            watch()
    except StopTraining:
        pass
    else:
        watch.flush()
    finally:
        phase.reset(token)

    best_before = [min([math.inf, *(s for s in values[:i] if s == s)]) for i in range(13)]
    stuck = [not score < best_before[i] for i, score in enumerate(values)]
    late = runs_of(stuck, delay)
    steps = late.index(True) + 1 if True in late else len(values)
    assert len(values) - given_scores.__length_hint__() == steps
    assert watch.best == best_before[steps]
    at = values.index(watch.best) if restore and not all(stuck[:steps]) else steps - 1
    assert p.data is array and (array == at).all()


def test_stop_early_shows_the_signature_of_its_score():
    score = lambda state: state.loss
    watch = stop_early(score, 1, [])
    assert inspect.signature(watch) == inspect.signature(score)
    watch(SimpleNamespace(loss=np.float32(0.5)))
    assert watch.best == 0.5


def test_a_copied_stop_early_belongs_to_the_copied_parameters():
    p = SimpleNamespace(data=np.zeros(1))
    q, watch = copy.deepcopy((p, stop_early(iter([1.0]).__next__, 1, [p])))
    watch()
    p.data += 1
    q.data += 2
    watch.flush()
    assert p.data == [1] and q.data == [0]


# --- epochs --------------------------------------------------------------------------------------


def test_epochs_announces_each_before_it_begins(capsys):
    for epoch in epochs(3):
        print("body", epoch)
        if epoch == 2:
            break
    assert capsys.readouterr().out.splitlines() == [
        "[ Info: Epoch 1",
        "body 1",
        "[ Info: Epoch 2",
        "body 2",
    ]


def test_epochs_can_be_silent_or_logged_elsewhere(capsys):
    lines = []
    assert list(epochs(2, log=lines.append)) == [1, 2] and lines == ["Epoch 1", "Epoch 2"]
    assert list(epochs(2, log=None)) == [1, 2] and list(epochs(0)) == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("n", "error"), [(-1, ValueError), (2.0, TypeError), (True, TypeError)])
def test_a_bad_number_of_epochs_is_refused_at_once(n, error):
    with pytest.raises(error, match=f"n is {n}"):
        epochs(n)
