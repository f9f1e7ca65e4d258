"use strict";
// Without this script every image is shown, split in the middle.
(() => {
  const comparisons = [...document.querySelectorAll(".comparison")];
  const chooser = document.getElementById("choose-image");
  const choose = () => comparisons.forEach((one) => { one.hidden = one.id !== chooser.value; });
  if (chooser) {
    chooser.addEventListener("change", choose);
    choose();
  }
  for (const one of comparisons) {
    const range = one.querySelector("input[type=range]");
    if (!range) continue;
    const split = () => one.style.setProperty("--share", `${range.value}%`);
    range.addEventListener("input", split);
    split(); // on reload, a browser may restore the slider but not the image
    const frame = one.querySelector(".frame");
    const drag = (event) => {
      if (event.buttons !== 1) return;
      const box = frame.getBoundingClientRect();
      range.value = Math.round((100 * (event.clientX - box.left)) / box.width);
      split();
    };
    frame.addEventListener("pointerdown", drag);
    frame.addEventListener("pointermove", drag);
    frame.addEventListener("dragstart", (event) => event.preventDefault());
    const layers = [...one.querySelectorAll(".over")];
    const show = () => {
      const chosen = one.querySelector("input[type=radio]:checked").value;
      layers.forEach((layer) => { layer.hidden = layer.dataset.layer !== chosen; });
    };
    one.querySelectorAll("input[type=radio]").forEach((radio) => radio.addEventListener("change", show));
    show();
  }
})();
