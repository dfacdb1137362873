// Files for an explorer: one that is dropped goes where its upload button puts one that is chosen, and one that is too
// large is refused in words before it is read. ipywidgets keeps that button's file input to itself and opens its dialog
// by click(): in this one click the input is met.
if (!window.audioxaiDrop) {
  window.audioxaiDrop = true;
  const explorerOf = event => event.target.closest?.(".audioxai-explorer");
  const buttonAt = event => {
    const button = explorerOf(event)?.querySelector(".widget-upload");
    return button?.offsetParent && event.dataTransfer.types.includes("Files") ? button : null;
  };
  const refused = (files, explorer) => {
    const large = [...files].find(file => file.size > LARGEST_BYTES);
    const status = explorer?.querySelector(".audioxai-status .widget-html-content");
    if (large && status) status.textContent = `${large.name} is too large: at most LARGEST_WORDS can be explained here.`;
    return Boolean(large);
  };
  const meetInput = (met, act) => {
    const click = HTMLInputElement.prototype.click;
    HTMLInputElement.prototype.click = function () { met(this, () => click.call(this)); };
    try { act(); } finally { HTMLInputElement.prototype.click = click; }
  };
  document.addEventListener("dragover", event => {
    if (!buttonAt(event)) return;
    event.preventDefault();
    event.stopPropagation();
  }, true);
  document.addEventListener("drop", event => {
    const button = buttonAt(event), files = event.dataTransfer.files;
    if (!button) return;
    event.preventDefault();
    event.stopPropagation();
    if (refused(files, explorerOf(event))) return;
    meetInput(input => {
      input.files = files;
      input.dispatchEvent(new Event("change"));
    }, () => button.click());
  }, true);
  document.addEventListener("click", event => {
    const button = event.target.closest?.(".widget-upload"), explorer = explorerOf(event);
    if (!button || !explorer || !event.isTrusted) return;
    event.preventDefault();
    event.stopPropagation();
    meetInput((input, open) => {
      if (!input.audioxaiGuard) {
        input.audioxaiGuard = true;
        input.addEventListener("change", change => {
          if (refused(input.files, explorer)) change.stopImmediatePropagation();
        }, true);
      }
      open();
    }, () => button.click());
  }, true);
}
