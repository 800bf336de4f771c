"""JupyterLab as a reader uses it: a notebook opened and run to its end, a slider moved and the picture changed."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from conftest import ROOT, SCREENS, Tab

MINUTES = 10  # on a busy machine; a quiet one needs one or two
TOKEN = "neurokd"

OPEN = "path => jupyterapp.commands.execute('docmanager:open', {path, factory: 'Notebook', kernel: {name: 'python3'}})"
STATE = """() => {
  const panel = jupyterapp.shell.currentWidget, session = panel?.sessionContext?.session;
  const cells = (panel?.content?.widgets ?? []).filter(cell => cell.model.type === "code");
  const outputs = cells.flatMap(cell => cell.model.sharedModel.getOutputs());
  return {
    ready: Boolean(session?.kernel) && cells.length > 0,
    idle: session?.kernel?.status === "idle",
    waiting: cells.filter(cell => !cell.model.executionCount).length,
    errors: outputs.filter(output => output.output_type === "error").map(output => `${output.ename}: ${output.evalue}`),
  };
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab whose folder holds copies of the notebooks."""
    folder = tmp_path_factory.mktemp("lab")
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy(notebook, folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [f"--port={port}", "--ip=127.0.0.1", "--no-browser", "--LabApp.expose_app_in_browser=True"]
    options += [f"--IdentityProvider.token={TOKEN}", "--allow-root"]
    environment = os.environ | {
        "NEUROKD_PROFILE": "ci",
        "PYTHONPATH": str(ROOT),
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path_factory.mktemp("settings")),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path_factory.mktemp("workspaces")),
    }
    environment.pop("MPLBACKEND", None)  # tests set one that draws nothing
    log = (folder / "lab.log").open("w")
    command = [sys.executable, "-m", "jupyterlab", *options]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=5)
                break
            except OSError:
                assert process.poll() is None, (folder / "lab.log").read_text()
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(30)
        log.close()


@pytest.fixture
def run(chromium, lab):
    """Open a notebook in JupyterLab, run all its cells, and return the page."""
    tabs = []

    def open_and_run(name):
        tab = Tab(chromium, lab, viewport={"width": 1400, "height": 1000})
        tabs.append(tab)
        page = tab.page
        page.goto(f"{lab}/lab?token={TOKEN}&reset", timeout=120_000)
        page.wait_for_function("window.jupyterapp && jupyterapp.shell", timeout=120_000)
        page.evaluate("() => jupyterapp.restored.then(() => true)")
        page.evaluate(OPEN, f"{name}.ipynb")
        wait_until(page, lambda state: state["ready"] and state["idle"], "no kernel")
        page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells'); }")
        wait_until(page, lambda state: state["errors"] or not state["waiting"], "not all cells have run")
        SCREENS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENS / f"lab-{name}.png")
        assert page.evaluate(STATE)["errors"] == []
        return page

    yield open_and_run
    for tab in tabs:
        tab.context.close()


def wait_until(page, condition, complaint):
    """Ask for the notebook's state until the condition holds."""
    end = time.monotonic() + 60 * MINUTES
    while not condition(state := page.evaluate(STATE)):
        assert time.monotonic() < end, f"{complaint} after {MINUTES} minutes: {state}"
        time.sleep(1)


@pytest.mark.parametrize("name", ["00_quickstart", "01_data_loading", "08_reconstruction"])
def test_a_notebook_runs_to_its_end(run, name):  # with viewers in 01 and 08
    run(name)


def test_a_slider_changes_the_picture(run):
    page = run("04_deformable_tubular")
    cell = page.evaluate(
        """() => { const cells = jupyterapp.shell.currentWidget.content;
        const at = cells.widgets.findIndex(cell => cell.model.sharedModel.source.includes("nkd.view_figure("));
        cells.activeCellIndex = at; return cells.scrollToItem(at).then(() => at); }"""
    )
    assert cell > 0
    slider = page.locator(".widget-slider [role=slider], .noUi-handle").first
    slider.scroll_into_view_if_needed(timeout=60_000)
    picture = page.locator(".widget-output img, .jupyter-widgets img").first
    before = picture.get_attribute("src", timeout=60_000)
    slider.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "before => { const image = document.querySelector('.widget-output img, .jupyter-widgets img');"
        " return image && image.src !== before; }",
        arg=before,
        timeout=120_000,
    )
    page.screenshot(path=SCREENS / "lab-slider.png")
