for (const place of document.querySelectorAll("[data-figure]")) {
  const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
  Plotly.newPlot(place, figure.data, figure.layout,
    {responsive: true, displaylogo: false, modeBarButtons: [["toImage"]]});
  // Paper is narrower than a screen, and no resize is announced before printing.
  addEventListener("beforeprint", () => Plotly.relayout(place, {width: 640, autosize: false}));
  addEventListener("afterprint", () => Plotly.relayout(place, {width: null, autosize: true}));
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
