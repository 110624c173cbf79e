"""Signals: the first is noted, the second stops, and the handlers of before come back."""

import signal
import threading

import pytest

from train.run.process import OneProcess, Stopped


@pytest.fixture(autouse=True)
def ordinary_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_is_noted_and_the_second_raises(signum, code, capfd):
    with OneProcess() as process:
        process.check()
        signal.raise_signal(signum)
        assert process.received == signum
        assert "once more stops at once" in capfd.readouterr().err
        with pytest.raises(Stopped) as first:
            process.check()
        with pytest.raises(Stopped) as second:
            signal.raise_signal(signum)
    assert first.value.exit_code == second.value.exit_code == code


def test_where_nothing_is_to_be_finished_the_first_raises():
    with OneProcess() as process:
        process.at_once = True
        with pytest.raises(Stopped, match="stopped by SIGTERM"):
            signal.raise_signal(signal.SIGTERM)


def test_the_handlers_of_before_come_back_also_after_an_error():
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyError), OneProcess():
        assert signal.getsignal(signal.SIGTERM) != before[1]
        raise KeyError
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before


def test_what_was_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with OneProcess() as process:
        signal.raise_signal(signal.SIGINT)
        assert process.received is None


def test_another_thread_may_train_too():
    stops = []

    def work():
        with OneProcess() as process:
            process.check()
            stops.append(process)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(stops) == 1
