// Where stored widgets find their font: in this book, not beside the page.
window.requirejs = { baseUrl: new URL("vendor", document.currentScript.src).href };

// Names and roles that the theme and the widgets leave out or get wrong, for those who read by ear or by keyboard
// (found by axe).
document.addEventListener("DOMContentLoaded", () => {
  for (const summary of document.querySelectorAll("nav summary, .bd-sidebar summary")) {
    summary.setAttribute("aria-label", "Open or close this part");
  }
  // What is written on them says more than the label that hides it.
  for (const labelled of document.querySelectorAll("summary[aria-label='Toggle hidden content'], .search-button-field")) {
    labelled.removeAttribute("aria-label");
  }
  for (const button of document.querySelectorAll(".theme-switch-button")) {
    button.setAttribute("aria-label", "Color mode: Light, Dark or System Settings"); // the names of its three pictures
  }
  for (const lines of document.querySelectorAll("dt.sig dl")) {
    lines.setAttribute("role", "presentation"); // the lines of a long signature define nothing
  }
  for (const list of document.querySelectorAll(".citation-list")) {
    list.removeAttribute("role");
  }
  new MutationObserver(nameWidgets).observe(document.body, { childList: true, subtree: true });
});

function nameWidgets() {
  for (const slider of document.querySelectorAll(".jupyter-widgets [role=slider]:not([aria-label])")) {
    const words = slider.closest(".widget-slider")?.querySelector(".widget-label")?.textContent;
    if (words) slider.setAttribute("aria-label", words);
  }
  for (const picture of document.querySelectorAll(".jupyter-widgets img:not([alt]), .widget-subarea img:not([alt])")) {
    picture.alt = "The picture that these controls change; one that stands still is beside it, with words.";
  }
}

// What scrolls can be reached by the tabulator. Formulas have their width only when they are drawn.
window.addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  for (const region of document.querySelectorAll("mjx-container, .pst-scrollable-table-container, pre")) {
    if (region.scrollWidth > region.clientWidth) region.tabIndex = 0;
  }
});
