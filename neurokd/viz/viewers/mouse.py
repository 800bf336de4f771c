"""Widget that reports clicks and drags on a picture in a notebook.

An ``ipywidgets.Image`` does not report clicks. This widget is invisible, lies in the same box as an image and
reports where the mouse touches that image. The picture remains an ordinary image, so it is also shown without
anywidget.
"""

from __future__ import annotations

import anywidget
import traitlets

__all__ = ["Mouse"]


class Mouse(anywidget.AnyWidget):
    """Report clicks and drags on the first image in the box that contains this widget.

    Attributes
    ----------
    drag
        Five numbers (stroke, x0, y0, x, y). ``stroke`` is a new number for each press of the button, (x0, y0)
        is the place of the press and (x, y) the present place of the mouse. Places are in pixels of the
        picture, independent of its size on the screen. Every message has all five numbers, because a busy
        kernel skips messages.
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
      // The image may be added to the page after this widget.
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
