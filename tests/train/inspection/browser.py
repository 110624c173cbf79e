"""A headless browser that opens pages without a network and notes whatever goes wrong in them."""

import functools
import shutil
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@functools.cache
def why_not():
    """Why there is no browser; None where there is one."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return 'playwright is not installed (pip install -e ".[browser-check]")'
    return None if _path() else f"none of {', '.join(NAMES)} is installed"


def _path():
    return next(filter(None, map(shutil.which, NAMES)), None)


needs_browser = pytest.mark.skipif(why_not() is not None, reason=f"no browser: {why_not()}")


@contextmanager
def browser():
    """A browser for as long as it is needed."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=_path(), headless=True)
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def opened(chromium, path, **options):
    """A page of the browser that shows a file, once its script is done.

    Fails at the end where the console has an error or a warning, or something was asked of a
    network.
    """
    context = chromium.new_context(accept_downloads=True, **{"reduced_motion": "reduce"} | options)
    page = context.new_page()
    wrong = []
    page.on("console", lambda m: m.type in ("error", "warning") and wrong.append(m.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda r: r.url.startswith(("file:", "blob:")) or wrong.append(r.url))
    try:
        page.goto(path.as_uri())
        page.locator("html[data-ready=yes]").wait_for(timeout=30_000)
        yield page
        assert not wrong, wrong
    finally:
        context.close()
