for (const place of document.querySelectorAll("[data-figure]")) {
  const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
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
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
