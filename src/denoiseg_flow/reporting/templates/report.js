"use strict";
// Comfort only: without this script every table, figure and image is there to read.
(() => {
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // Tables: a click on a header sorts, up, down and as it was.
  const ORDERS = { none: "ascending", ascending: "descending", descending: "none" };
  const missing = (text) => text === "" || text === "\u2013";
  const number = (text) => {
    const found = text.replace("\u2212", "-").match(/^[+-]?(inf|[\d,]*\.?\d+)(?=$|[ ;%])/);
    return found ? Number(found[0].replace("inf", "Infinity").replaceAll(",", "")) : NaN;
  };
  const sort = (rows, column, descending) => {
    const text = (row) => row.cells[column].textContent.trim();
    const known = rows.filter((row) => !missing(text(row)));
    const numeric = known.every((row) => !Number.isNaN(number(text(row))));
    const compare = numeric
      ? (a, b) => number(text(a)) - number(text(b)) || 0 // equal infinities
      : (a, b) => text(a).localeCompare(text(b), "en", { numeric: true });
    known.sort((a, b) => (descending ? compare(b, a) : compare(a, b)));
    return [...known, ...rows.filter((row) => missing(text(row)))];
  };
  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    if (rows.length < 2) continue;
    const headers = [...table.tHead.rows[0].cells];
    for (const header of headers) {
      const button = make("button", { type: "button" }, ...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => {
        const order = ORDERS[header.ariaSort ?? "none"];
        headers.forEach((one) => { one.ariaSort = null; });
        header.ariaSort = order;
        const sorted = sort(rows, header.cellIndex, order === "descending");
        body.append(...(order === "none" ? rows : sorted));
      });
    }
  }

  // Figures: a click or the button shows one in the whole window; Esc or a click closes it.
  const large = make("img");
  const close = make("button", { type: "button" }, "Close");
  const zoom = make("dialog", { className: "zoom" }, close, make("div", {}, large));
  zoom.addEventListener("click", () => zoom.close());
  for (const image of document.querySelectorAll(".picture img")) {
    const open = () => {
      large.src = image.src;
      large.alt = zoom.ariaLabel = image.alt;
      const whole = Math.min(0.95 * innerWidth, (0.85 * innerHeight * image.naturalWidth) / image.naturalHeight);
      const wide = Math.max(0.95 * innerWidth, Math.min(image.naturalWidth, 1000)); // scrolls
      large.style.width = `${whole > image.width ? whole : wide}px`;
      document.body.append(zoom);
      zoom.showModal();
      zoom.querySelector("div").scrollTo(0, 0);
    };
    image.addEventListener("click", open);
    const button = make("button", { type: "button", className: "enlarge" }, "Enlarge");
    button.ariaLabel = `Enlarge: ${image.closest("figure").querySelector("h3").textContent}`;
    button.addEventListener("click", open);
    image.closest("figure").querySelector("figcaption").append(" ", button);
  }

  // Scores: the image of one point is shown, chosen by slider, pointer or finger.
  for (const one of document.querySelectorAll(".scores")) {
    const [plot, range] = [one.querySelector(".plot"), one.querySelector("input")];
    const points = [...one.querySelectorAll(".point[data-picture]")];
    const pictures = [...one.querySelectorAll(".thumbnails figure")];
    const pick = () => {
      points.forEach((point, index) => { point.classList.toggle("picked", index === range.valueAsNumber); });
      pictures.forEach((picture, index) => { picture.hidden = index !== range.valueAsNumber; });
      range.ariaValueText = pictures[range.value].querySelector("figcaption").textContent;
    };
    const nearest = (event) => {
      const distance = (point) => Math.abs(point.getBoundingClientRect().x - event.clientX);
      const closest = points.reduce((a, b) => (distance(b) < distance(a) ? b : a));
      range.value = points.indexOf(closest);
      pick();
    };
    range.closest("label").hidden = false;
    range.addEventListener("input", pick);
    plot.addEventListener("pointerdown", nearest);
    plot.addEventListener("pointermove", nearest);
    pick();
  }

  // Sliders: one image at a time, and its divider moves.
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
