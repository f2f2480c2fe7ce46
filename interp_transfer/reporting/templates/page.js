"use strict";
// Unpack the page's data and its plotting library, draw figures, and make the page fit for print.
const unpack = async (id) => {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
};
let start;
const blocks = new Promise((resolve) => { start = () => resolve(unpack("data").then(JSON.parse)); });
const jobs = [blocks.then(async (data) => {
  const places = document.querySelectorAll("[data-figure]");
  if (!places.length) return;
  const library = document.createElement("script");
  library.textContent = await unpack("library");
  document.body.append(library);  // runs at once, if its hash is in the policy
  for (const place of places) draw(place, data[place.dataset.figure]);
})];
function draw(place, figure) {
  Plotly.newPlot(place, figure.data, figure.layout,
    {responsive: true, displaylogo: false, modeBarButtons: [["toImage"]]});
  if (figure.layout.meta === "linked") place.on("plotly_hover", ({points}) => {
    const [id] = points[0].customdata || [];
    const same = figure.data.flatMap((trace, curveNumber) => (trace.customdata || []).flatMap(([other], pointNumber) =>
      other === id ? [{curveNumber, pointNumber}] : []));
    if (points.length === 1 && same.length > 1) Plotly.Fx.hover(place, same, ["xy", "x2y2"]);
  });
  // Paper is narrower than a screen, and no resize is announced before printing.
  addEventListener("beforeprint", () => Plotly.relayout(place, {width: 640, autosize: false}));
  addEventListener("afterprint", () => Plotly.relayout(place, {width: null, autosize: true}));
}
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const details of folded) details.open = true;
});
addEventListener("afterprint", () => { for (const details of folded) details.open = false; });
addEventListener("DOMContentLoaded", async () => {
  start();
  try {
    await Promise.all(jobs);
    document.documentElement.dataset.ready = "yes";
  } catch (error) {
    document.getElementById("cannot").hidden = false;
    document.documentElement.dataset.ready = "no";
    if (typeof DecompressionStream === "function") throw error;
  }
});
