// A file dropped on an explorer goes where its upload button puts one that is chosen. ipywidgets keeps that
// button's file input to itself and opens its dialog by click(): for this one click the file is there already.
if (!window.audioxaiDrop) {
  window.audioxaiDrop = true;
  const buttonAt = event => {
    const button = event.target.closest?.(".audioxai-explorer")?.querySelector(".widget-upload");
    return button?.offsetParent && event.dataTransfer.types.includes("Files") ? button : null;
  };
  document.addEventListener("dragover", event => {
    if (!buttonAt(event)) return;
    event.preventDefault();
    event.stopPropagation();
  }, true);
  document.addEventListener("drop", event => {
    const button = buttonAt(event), click = HTMLInputElement.prototype.click;
    if (!button) return;
    event.preventDefault();
    event.stopPropagation();
    HTMLInputElement.prototype.click = function () {
      this.files = event.dataTransfer.files;
      this.dispatchEvent(new Event("change"));
    };
    try { button.click(); } finally { HTMLInputElement.prototype.click = click; }
  }, true);
}
