"""The place of a click or a drag on a picture in a notebook.

ipywidgets report no clicks on an image. This widget shows nothing; it stands in the same box as an
``ipywidgets.Image`` and reports where that image is touched. The picture stays an ordinary Image, so that it
is shown where anywidget is missing.
"""

from __future__ import annotations

import anywidget
import traitlets

__all__ = ["Mouse"]


class Mouse(anywidget.AnyWidget):
    """Report clicks and drags on the first image of the box that this widget stands in.

    Attributes
    ----------
    drag
        (stroke, x0, y0, x, y): a new number each time the button goes down, the place where it went down, and
        the place of the mouse now. Places are pixels of the picture, whatever size it is shown in. All five
        are sent every time, since a busy kernel skips messages.
    """

    _esm = """
    function render({ model, el }) {
      el.style.display = "none";
      let image = null, start = null;
      const at = (event) => {
        const box = image.getBoundingClientRect();
        return [
          ((event.clientX - box.left) * image.naturalWidth) / box.width,
          ((event.clientY - box.top) * image.naturalHeight) / box.height,
        ];
      };
      const tell = (event) => {
        model.set("drag", [...start, ...at(event)]);
        model.save_changes();
      };
      const down = (event) => {
        if (event.button !== 0) return;
        event.preventDefault();
        image.setPointerCapture(event.pointerId);
        start = [Date.now(), ...at(event)];
        tell(event);
      };
      const move = (event) => { if (start) tell(event); };
      const up = () => { start = null; };
      const listeners = { pointerdown: down, pointermove: move, pointerup: up, pointercancel: up };
      // The image may come into the page after this widget.
      const timer = setInterval(() => {
        const box = el.closest(".widget-vbox");
        image = box && box.querySelector("img");
        if (!image) return;
        clearInterval(timer);
        image.style.cursor = "crosshair";
        image.style.touchAction = "none";
        for (const [name, listener] of Object.entries(listeners)) image.addEventListener(name, listener);
      }, 100);
      return () => {
        clearInterval(timer);
        if (!image) return;
        for (const [name, listener] of Object.entries(listeners)) image.removeEventListener(name, listener);
      };
    }
    export default { render };
    """
    drag = traitlets.List(traitlets.Float(), [0.0] * 5).tag(sync=True)
