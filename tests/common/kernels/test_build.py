"""Compiling and loading: what works, what does not, and what is said about it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from common import kernels
from common.kernels import build

needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None and shutil.which("gcc") is None, reason="no C compiler here"
)


def forget():
    for function in (build.load, build.attempt, kernels.print_notice):
        function.cache_clear()


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
    """An empty cache, and an empty folder for temporary files."""
    cache, temporary = tmp_path / "cache", tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(build.tempfile, "tempdir", str(temporary))
    monkeypatch.delenv("TIMELAYERS_NATIVE", raising=False)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(build, "FLAGS", ["-O0", "-shared", "-fPIC", "-pthread"])  # quickly
    forget()
    yield cache, temporary
    forget()


@pytest.fixture
def calls(monkeypatch):
    """The arguments of every call of the compiler."""
    made = []
    run = build._run

    def counted(compiler, *arguments, **more):
        made.append(arguments)
        return run(compiler, *arguments, **more)

    monkeypatch.setattr(build, "_run", counted)
    return made


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Lets a shell script be the compiler; it asks for its version like any other."""

    def write(text):
        path = tmp_path / "compiler"
        path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo one; exit; fi\n{text}\n')
        path.chmod(0o755)
        monkeypatch.setenv("CC", str(path))
        return path

    return write


def libraries(folder):
    return sorted(folder.rglob("*.so"))


def compilations(calls):
    return sum(arguments != ("--version",) for arguments in calls)


@pytest.mark.parametrize("value", ["0", "off", "FALSE", "no"])
def test_they_can_be_switched_off(value, monkeypatch):
    monkeypatch.setenv("TIMELAYERS_NATIVE", value)
    assert build.load() is None
    assert kernels.status()["reason"] == f"TIMELAYERS_NATIVE={value}"


@needs_compiler
@pytest.mark.parametrize("value", ["1", "on", "True", "yes", ""])
def test_they_can_be_switched_on(value, monkeypatch):
    monkeypatch.setenv("TIMELAYERS_NATIVE", value)
    assert build.load() is not None
    assert kernels.notice() is None


def test_a_switch_that_is_neither_on_nor_off_is_refused(monkeypatch):
    monkeypatch.setenv("TIMELAYERS_NATIVE", "maybe")
    with pytest.raises(ValueError, match=r"TIMELAYERS_NATIVE: expected one of .*, got 'maybe'"):
        kernels.prepare()


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("/nowhere/cc", "there is no command /nowhere/cc"),
        ("false", "false failed with exit status 1"),
        ("true", "true made no file"),
        ("'cc", "cannot be split into words"),
        (str(Path(__file__).parent), "there is no command"),
    ],
)
def test_a_compiler_that_cannot_leaves_numpy_and_says_why(compiler, reason, monkeypatch, folders):
    monkeypatch.setenv("CC", compiler)
    assert build.load() is None
    assert reason in kernels.status()["reason"]
    assert reason in kernels.notice()
    assert not libraries(folders[0])


def test_without_a_compiler_that_is_the_reason(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert build.load() is None
    assert "there is no C compiler" in kernels.notice()


def test_the_first_error_of_the_compiler_is_the_reason(script):
    script("echo hint >&2; echo 'lstm.c:3: error: no such thing' >&2; exit 1")
    assert "failed with exit status 1: lstm.c:3: error: no such thing" in kernels.notice()


def test_the_notice_is_one_line_and_printed_once(monkeypatch, capsys):
    monkeypatch.setenv("TIMELAYERS_NATIVE", "0")
    kernels.print_notice()
    kernels.print_notice()
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "no compiled kernels (TIMELAYERS_NATIVE=0)" in err


def test_nobody_has_to_read_the_notice(monkeypatch):
    monkeypatch.setenv("TIMELAYERS_NATIVE", "0")
    monkeypatch.setattr(sys, "stderr", None)
    kernels.print_notice()


@pytest.mark.parametrize("switch", ["0", "1"])
def test_the_status_can_be_written_as_json(switch, monkeypatch):
    monkeypatch.setenv("TIMELAYERS_NATIVE", switch)
    status = kernels.status()
    assert json.loads(json.dumps(status)) == status
    assert status["compiled"] == (build.load() is not None) == (status["reason"] == "")
    assert status["threads"] == kernels.num_threads()
    assert all(" threads" in line for line in status["blas"])


@needs_compiler
class TestWithACompiler:
    @pytest.mark.parametrize("words", ["{cc} -O2", "env {cc}", "  {cc}  "])
    def test_it_may_be_several_words(self, words, monkeypatch):
        monkeypatch.setenv("CC", words.format(cc=shutil.which("cc") or shutil.which("gcc")))
        assert build.load() is not None

    def test_it_compiles_once_for_one_source(self, folders, calls):
        assert build.load() is not None
        (made,) = libraries(folders[0])
        assert kernels.status()["file"] == str(made)
        forget()
        assert build.load() is not None
        assert compilations(calls) == 1
        assert libraries(folders[0]) == [made]
        assert not list(folders[1].rglob("*"))[1:]  # the folder alone

    @pytest.mark.parametrize("content", [b"", b"\x7fELF", "half", "other"])
    def test_a_file_that_is_not_what_was_compiled_is_compiled_again(self, content, folders, calls):
        assert build.load() is not None
        (made,) = libraries(folders[0])
        whole = made.read_bytes()
        if content == "half":
            content = whole[: len(whole) // 2]
        elif content == "other":
            content = whole[:-1] + b"?"
        made.unlink()  # this process has it in its memory
        made.write_bytes(content)
        forget()
        assert build.load() is not None
        assert compilations(calls) == 2
        assert made.read_bytes() == whole

    def test_a_library_without_a_function_is_compiled_again(self, folders, calls, monkeypatch):
        assert build.load() is not None
        (made,) = libraries(folders[0])
        made.unlink()
        empty = folders[1] / "empty"
        empty.with_suffix(".c").write_text("int nothing;")
        cc = shutil.which("cc") or shutil.which("gcc")
        subprocess.run([cc, "-shared", "-o", empty, empty.with_suffix(".c")], check=True)
        key = kernels.status()["key"]
        wrong = made.with_name(build._name(key, empty.read_bytes()))
        wrong.write_bytes(empty.read_bytes())
        forget()
        assert build.load() is not None
        assert compilations(calls) == 2
        assert libraries(folders[0]) == [made]

    def test_a_cache_that_is_a_file_is_replaced_by_a_temporary_folder(self, folders, calls):
        folders[0].write_text("not a folder")
        for _ in range(2):
            assert build.load() is not None
            assert kernels.status()["file"].startswith(str(folders[1]))
            forget()
        assert compilations(calls) == 1

    def test_a_cache_that_cannot_load_is_replaced_by_a_temporary_folder(
        self, folders, calls, monkeypatch
    ):
        load = build.ctypes.CDLL

        def noexec(path):
            if path.startswith(str(folders[0])):
                raise OSError(f"{path}: failed to map segment from shared object")
            return load(path)

        monkeypatch.setattr(build.ctypes, "CDLL", noexec)
        for _ in range(2):
            assert build.load() is not None
            assert kernels.status()["file"].startswith(str(folders[1]))
            forget()
        assert compilations(calls) == 1

    def test_where_no_folder_can_load_it_compiles_once_and_says_so(
        self, folders, calls, monkeypatch
    ):
        def noexec(path):
            raise OSError(f"{path}: failed to map segment from shared object")

        monkeypatch.setattr(build.ctypes, "CDLL", noexec)
        for _ in range(2):
            assert build.load() is None
            assert "failed to map segment" in kernels.notice()
            forget()
        assert compilations(calls) == 1

    def test_a_temporary_folder_that_others_can_write_to_is_not_used(self, folders):
        folders[0].write_text("not a folder")
        shared = folders[1] / f"time-layers-{os.getuid()}"
        shared.mkdir()
        shared.chmod(0o777)
        assert build.load() is None
        assert "others can write to" in kernels.notice()

    def test_without_a_home_folder_nothing_is_made_where_one_stands(
        self, folders, monkeypatch, tmp_path
    ):
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(
            build.os.path, "expanduser", lambda path: path
        )  # as where none is known
        monkeypatch.chdir(tmp_path)
        assert build.load() is not None
        assert kernels.status()["file"].startswith(str(folders[1]))
        assert not (tmp_path / "~").exists()

    def test_files_that_nobody_used_for_long_are_removed_but_for_the_newest(self, folders):
        folder = folders[0] / "time-layers" / "native"
        folder.mkdir(parents=True)
        now = time.time()
        for days in range(12):
            path = folder / f"kernels-{days:016x}.so"
            path.touch()
            os.utime(path, (now, now - (days + 40) * 86400))
        recent = folder / "kernels-recent.so"
        recent.touch()
        stale = folder / "compiling-stale"
        stale.touch()
        os.utime(stale, (now, now - 2 * 86400))
        other = folder / "notes.txt"
        other.touch()
        assert build.load() is not None
        kept = {path.name for path in folder.iterdir()}
        newest = {f"kernels-{days:016x}.so" for days in range(build.FILES_KEPT - 1)}
        made = Path(kernels.status()["file"]).name
        assert kept == {made, recent.name, other.name} | newest

    def test_two_processes_may_compile_at_once(self, folders):
        code = "from common import kernels; print(kernels.status()['file'], kernels.notice())"
        command = [sys.executable, "-c", code]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        found = {process.communicate(timeout=300)[0] for process in both}
        (made,) = libraries(folders[0])
        assert found == {f"{made} None\n"}


@pytest.mark.parametrize(
    "ending",
    [
        "kill -TERM $$",
        "kill -KILL $$",
        "exit 143",
        "echo 'gcc: fatal error: Killed signal terminated program cc1' >&2; exit 1",
    ],
)
def test_a_compiler_that_a_signal_ends_is_no_answer(ending, script, calls):
    script(ending)
    for _ in range(2):  # nor is it one at the next call
        with pytest.raises(RuntimeError, match=r"a signal ended .*TIMELAYERS_NATIVE=0"):
            build.load()
    assert compilations(calls) == 4


@pytest.mark.parametrize("ending", ["kill -ABRT $$", "kill -SEGV $$", "exit 139"])
def test_a_compiler_that_crashes_by_itself_would_crash_again(ending, script, calls):
    script(ending)
    assert build.load() is None
    assert "failed with exit status" in kernels.status()["reason"]
    assert compilations(calls) == 1


def test_a_compiler_that_is_ended_leaves_no_files(script, folders, tmp_path):
    script(f"mktemp >> {tmp_path}/made; kill -TERM $$")
    with pytest.raises(RuntimeError, match="a signal ended"):
        build.load()
    made = (tmp_path / "made").read_text().split()
    assert len(made) == 2 and not any(map(os.path.exists, made))
    assert all(path.startswith(str(folders[1])) for path in made)


@needs_compiler
def test_a_compiler_that_a_signal_ended_once_is_asked_again(script, tmp_path):
    cc = shutil.which("cc") or shutil.which("gcc")
    script(f'if mkdir {tmp_path}/first 2>/dev/null; then kill -TERM $$; fi\nexec {cc} "$@"')
    assert build.load() is not None
    assert (tmp_path / "first").exists()


@needs_compiler
def test_a_signal_to_the_group_does_not_reach_the_compiler(script, tmp_path):
    cc = shutil.which("cc") or shutil.which("gcc")
    os.mkfifo(tmp_path / "go")
    script(f'echo > {tmp_path}/begun; read line < {tmp_path}/go; exec {cc} "$@"')
    code = """
import signal
from common import kernels
got = []
signal.signal(signal.SIGTERM, lambda *_: got.append("a signal"))
kernels.prepare()
print(got, kernels.status()["compiled"])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    opener = threading.Thread(target=(tmp_path / "go").write_text, args=("\n",))
    opener.start()
    out, _ = process.communicate(timeout=300)
    opener.join()
    assert out == "['a signal'] True\n"


def test_an_interrupt_ends_the_compiler_too(script, tmp_path, monkeypatch):
    script(f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    communicate = subprocess.Popen.communicate
    interrupted = []

    def interrupt(process, *args, **kwargs):
        if "--version" in process.args or interrupted:
            return communicate(process, *args, **kwargs)
        interrupted.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        kernels.prepare()
    assert interrupted[0].poll() == -signal.SIGKILL


def test_options_of_the_compiler_are_part_of_the_key():
    plain = build._key("gcc 12", [])
    assert build._key("gcc 12", ["-O0"]) != plain
    assert build._key("gcc 12", []) == plain
